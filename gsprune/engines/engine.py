"""What an engine is: something that runs a network, and can therefore be timed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from gsprune.engines.portable_call import PortableCall
from gsprune.engines.timing import Forward

__all__ = ["Engine", "package_version"]


class Engine(Protocol):
    """Runs networks on the CPU. An engine subclasses this, defines `load`, and is registered under a name.

    Attributes:
        package: the installed package that does the work; measurements count for its version alone.
        settings: JSON values with which the engine runs a network. Measurements with other settings do not count.
    """

    package: str
    settings: Mapping[str, Any] = {}

    def load(self, call: PortableCall, threads: int) -> Forward:
        """Load a network.

        Args:
            call: the network and its inputs, not to be changed.
            threads: number of threads of one forward, >= 1. PyTorch uses as many during this call and later ones.

        Returns:
            a function without arguments that runs the network on the inputs of `call`.

        Raises:
            MissingExtraError: a package that the engine needs is not installed.
        """

    def unload(self) -> None:
        """Release what earlier networks have left behind; their forwards are not called again."""
        return


def package_version(package: str, missing: str = "unknown") -> str:
    """The version of an installed package, or `missing`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return missing
