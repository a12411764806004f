"""Who may import whom (docs/concepts/architecture.md), and what `import gsprune` may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import gsprune

PACKAGE = Path(gsprune.__file__).parent

# A module may import from its own package and from every layer below it, not from another package of its layer.
LAYERS = (
    ("cli",),
    ("sweep",),
    ("report",),
    ("rl",),
    ("baselines", "networks"),
    ("exporting", "checkpoint"),
    ("pruning",),
    ("schedules",),
    ("engines",),
    ("compensation",),
    ("importance", "selection", "rewrite"),
    ("backends", "distributed"),
    ("tracing",),
    ("core", "interrupts", "kernels"),
    ("_core",),
    ("checks", "files", "arrays", "errors"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
HEAVY = (
    "triton",
    "procgen",
    "gym",
    "gym3",
    "gymnasium",
    "tensorboard",
    "matplotlib",
    "tyro",
    "rich",
    "yaml",
    "onnx",
    "onnxruntime",
    "ray",
    "PIL",
    "av",
    "pygame",
)


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


def test_the_page_has_these_layers() -> None:
    page = (Path(__file__).parents[1] / "docs/concepts/architecture.md").read_text()
    assert " -> ".join(", ".join(names) for names in LAYERS) in " ".join(page.split())


def imported_by(path: Path) -> set[str]:
    """First component below `gsprune` of everything that a module imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "gsprune":
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("gsprune.")}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in RANK, f"{own} has no layer"
    for other in imported_by(path):
        if other in RANK and other != own:
            assert RANK[other] > RANK[own], f"{own} imports {other}, which is not below it"


def imported_when_loaded(path: Path, names: Collection[str]) -> set[str]:
    """Modules below `gsprune` that a module imports at its top level, not for type checkers alone."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gsprune."):
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}.intersection(names)
            found |= submodules or {node.module}
    return found


def test_no_modules_import_each_other() -> None:
    paths = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in modules()}
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    graph = {name: imported_when_loaded(path, paths) for name, path in paths.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_importing_the_package_needs_torch_numpy_and_safetensors_alone() -> None:
    code = f"import sys, gsprune; print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == "[]"


def test_every_public_name_exists_and_is_documented() -> None:
    for name in gsprune.__all__:
        assert getattr(gsprune, name).__doc__, name
