"""The compiled core is found in a clone, whether it was installed from there or not, and a stale one is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import gsprune
from gsprune import _core
from gsprune.core.sources import fingerprint

PACKAGE = Path(gsprune.__file__).parent
SOURCES = Path(__file__).parents[1] / "csrc"
CORE = Path(_core.__file__ or "")
# The loader alone, without torch: `import gsprune` with everything else of `__init__` left out.
INIT = "from gsprune.core import loader\n"
SHOW = "import gsprune; print(gsprune.__file__, gsprune._core.__file__, gsprune._core.machine is not None)"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone that was not built: the package without a core beside csrc/."""
    root = tmp_path / "clone"
    (root / "gsprune").mkdir(parents=True)
    (root / "gsprune" / "__init__.py").write_text(INIT)
    shutil.copytree(PACKAGE / "core", root / "gsprune" / "core")
    shutil.copytree(SOURCES, root / "csrc")
    return root


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A site-packages that `pip install .` has filled."""
    folder = tmp_path / "site-packages" / "gsprune"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(INIT)
    (folder / CORE.name).symlink_to(CORE)
    return folder.parent


def run(root: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Python in the folder `root`, with `path` behind it in the search path."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    env["PYTHONPATH"] = str(path) if path else ""
    # Without site-packages, where a gsprune may be installed.
    return subprocess.run(
        [sys.executable, "-S", *arguments], cwd=root, env=env, capture_output=True, text=True, check=False
    )


def test_the_core_says_which_sources_it_was_built_from() -> None:
    if SOURCES.is_dir():
        assert _core.sources == fingerprint(SOURCES)


def test_in_a_clone_python_takes_the_installed_core(clone: Path, installed: Path) -> None:
    done = run(clone, "-c", SHOW, path=installed)
    assert done.stdout.split() == [
        str(clone / "gsprune" / "__init__.py"),
        str(installed / "gsprune" / CORE.name),
        "True",
    ], done.stderr


def test_in_a_clone_a_module_takes_the_installed_core(clone: Path, installed: Path) -> None:
    (clone / "module.py").write_text(SHOW)
    done = run(clone, "-m", "module", path=installed)
    assert done.stdout.split()[1] == str(installed / "gsprune" / CORE.name), done.stderr


def test_the_core_of_an_editable_install_goes_first(clone: Path, installed: Path) -> None:
    (clone / "gsprune" / CORE.name).symlink_to(CORE)
    done = run(clone, "-c", SHOW, path=installed)
    assert done.stdout.split()[1] == str(clone / "gsprune" / CORE.name), done.stderr


def test_without_any_core_the_error_says_how_to_build_it(clone: Path) -> None:
    done = run(clone, "-c", SHOW)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: gsprune's compiled core is not built for this Python (")
    assert last.endswith("run: pip install -c constraints.txt . (or pip install -c constraints.txt -e .)")


def test_a_core_for_another_python_counts_as_none(clone: Path, installed: Path) -> None:
    (installed / "gsprune" / CORE.name).rename(installed / "gsprune" / "_core.cpython-39-x86_64-linux-gnu.so")
    done = run(clone, "-c", SHOW, path=installed)
    assert "compiled core is not built for this Python" in done.stderr.splitlines()[-1]


def _edit(sources: Path) -> None:
    with (sources / "python" / "module.cpp").open("a") as file:
        file.write("// edited\n")


def _add(sources: Path) -> None:
    (sources / "topic").mkdir()
    (sources / "topic" / "new.cpp").touch()


def _rename(sources: Path) -> None:
    (sources / "machine" / "isa.hpp").rename(sources / "machine" / "sets.hpp")


@pytest.mark.parametrize("change", [_edit, _add, _rename])
@pytest.mark.parametrize("place", ["installed", "in the clone"])
def test_a_stale_core_is_refused(clone: Path, installed: Path, change: Callable[[Path], None], place: str) -> None:
    if place == "in the clone":
        (clone / "gsprune" / CORE.name).symlink_to(CORE)
    change(clone / "csrc")
    last = run(clone, "-c", SHOW, path=installed).stderr.splitlines()[-1]
    assert last.startswith("ImportError: gsprune's compiled core ")
    assert f"was built from other C++ sources than {clone / 'csrc'}" in last
    assert f"Build it again, in {clone}: pip install" in last


def test_an_installed_package_needs_no_sources(clone: Path, installed: Path, tmp_path: Path) -> None:
    shutil.copytree(PACKAGE / "core", installed / "gsprune" / "core")
    done = run(tmp_path, "-c", SHOW, path=installed)
    assert done.stdout.split()[1] == str(installed / "gsprune" / CORE.name), done.stderr


def test_a_package_without_sources_takes_no_core_from_elsewhere(clone: Path, installed: Path) -> None:
    """Nothing could tell whether that core belongs to these Python files."""
    shutil.rmtree(clone / "csrc")
    done = run(clone, "-c", SHOW, path=installed)
    assert "compiled core is not built for this Python" in done.stderr.splitlines()[-1]
