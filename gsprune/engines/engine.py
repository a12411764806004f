"""The protocol of engines: an engine loads a network and returns a forward that can be timed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from gsprune.engines.portable_call import PortableCall
from gsprune.engines.timing import Forward

__all__ = ["Engine", "package_version"]


class Engine(Protocol):
    """Runs networks on the CPU. Subclasses define `load` and are registered under a name.

    Attributes:
        package: the installed package that runs networks. Stored measurements are valid for one version of it.
        settings: the engine's options, JSON values. Stored measurements are valid for one set of options.
    """

    package: str
    settings: Mapping[str, Any] = {}

    def load(self, call: PortableCall, threads: int) -> Forward:
        """Load a network.

        Args:
            call: the network and its inputs; must not be changed.
            threads: number of threads of one forward, >= 1. PyTorch is set to the same number.

        Returns:
            a function that runs the network on the inputs of `call`.

        Raises:
            MissingExtraError: a package that the engine needs is not installed.
        """

    def unload(self) -> None:
        """Release the memory and caches of loaded networks. Their forwards are not called again."""
        return


def package_version(package: str, missing: str = "unknown") -> str:
    """The version of an installed package, or `missing`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return missing
