"""Loads the compiled core ``gsprune._core`` at import. The package imports this module first.

After ``pip install .`` only the installed package has the core. Python started in the root of the clone imports the
source folder, which has no core. Then the installed core is loaded, provided that it was built from the ``csrc/`` of
this clone. A core from other sources is an error, because its functions may take other arguments.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from gsprune.core.sources import fingerprint

__all__ = ["load_core"]

_NAME = "gsprune._core"
_BUILD = "pip install -c constraints.txt . (or pip install -c constraints.txt -e .)"


def load_core(package: Path, search: list[str]) -> ModuleType:
    """Load the compiled core of the package in the folder `package`.

    Args:
        package: folder of the package's Python files.
        search: folders that may hold an installed ``gsprune``, in order: ``sys.path``.

    Raises:
        ImportError: no core was built for this Python, or it was built from other C++ sources than ``csrc/``.
    """
    sources = package.parent / "csrc"
    in_clone = (sources / "python" / "module.cpp").is_file()
    spec = _find([package])
    if spec is None and in_clone:
        spec = _find([Path(entry) / "gsprune" for entry in search])
    if spec is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise ImportError(
            f"gsprune's compiled core is not built for this Python ({version}, {sys.executable}); {package} has none, "
            f"nor has an installed package. In the root of a clone of gsprune run: {_BUILD}",
            name=_NAME,
        )
    core = _execute(spec)
    if in_clone and getattr(core, "sources", None) != fingerprint(sources):
        raise ImportError(
            f"gsprune's compiled core {spec.origin} was built from other C++ sources than {sources}. "
            f"Build it again, in {package.parent}: {_BUILD}",
            name=_NAME,
            path=spec.origin,
        )
    return core


def _find(folders: list[Path]) -> ModuleSpec | None:
    spec = PathFinder.find_spec(_NAME, list(map(str, folders)))
    return None if spec is None or spec.loader is None else spec  # no loader: the folder of the type stubs


def _execute(spec: ModuleSpec) -> ModuleType:
    core = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(core)
    return core


_package = Path(__file__).parents[1]
_core = load_core(_package, sys.path)
sys.modules[_NAME] = _core
# `from gsprune import _core` reads the attribute.
sys.modules["gsprune"]._core = _core  # type: ignore[attr-defined]  # mypy knows no attributes that are set on a module
