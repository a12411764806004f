"""What a newcomer's `pip install` meets: constraints for every Python, and a build without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
packaging_requirements = pytest.importorskip("packaging.requirements")

# (package, Python) -> the newest version with a wheel, where the newest of all has none or contradicts Procgen.
WHEELS = {
    "matplotlib": ("3.10.9", "3.11.2", "3.11.2", "3.11.2", "3.11.2"),
    "onnxruntime": ("1.23.2", "1.32.0", "1.32.0", "1.32.0", "1.32.0"),
    "hypothesis": ("6.168.5", "6.170.15", "6.170.15", "6.170.15", "6.170.15"),
    "numpy": ("1.26.4", "1.26.4", "1.26.4", "2.5.5", "2.5.5"),
    "ml_dtypes": ("0.5.4", "0.5.4", "0.5.4", "0.6.0", "0.6.0"),
    "torch": ("2.13.0",) * 5,
}


def _applying(python: str, lines: list[str], extra: str = "") -> dict[str, str]:
    """Package -> specifier, of the requirements that hold for x86-64 Linux with this Python."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": "x86_64",
        "sys_platform": "linux",
        "extra": extra,
    }
    found: dict[str, str] = {}
    for line in lines:
        requirement = packaging_requirements.Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert requirement.name not in found, f"{requirement.name} is constrained twice for Python {python}"
            found[requirement.name] = str(requirement.specifier)
    return found


def _constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("python", PYTHONS)
def test_each_python_is_constrained_to_versions_that_have_wheels_for_it(python: str) -> None:
    found = _applying(python, _constraints())
    for package, versions in WHEELS.items():
        assert found[package] == f"=={versions[PYTHONS.index(python)]}"


@pytest.mark.parametrize(
    ("python", "package"),
    [("3.10", "procgen"), ("3.11", "procgen-mirror"), ("3.12", "procgen-mirror"), ("3.13", None), ("3.14", None)],
)
def test_the_extra_train_asks_for_the_procgen_that_has_a_wheel(python: str, package: str | None) -> None:
    lines = [line.strip().strip('",') for line in (ROOT / "pyproject.toml").read_text().splitlines()]
    found = _applying(python, [line for line in lines if line.startswith("procgen") and ">=" in line])
    assert list(found) == ([package] if package else [])


def _build(tmp_path: Path, **variables: str) -> list[str]:
    """The build's output where no compiler can be found; nothing is compiled."""
    pytest.importorskip("pybind11")
    env = {**os.environ, "PATH": str(tmp_path), "GSPRUNE_BUILD_JOBS": "1", **variables}
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "build_ext",
        "--build-lib",
        str(tmp_path),
        "--build-temp",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    return (done.stdout + done.stderr).strip().splitlines()


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, "++"),
        ({"CXX": "no-such-compiler"}, "no-such-compiler"),
        ({"CC": "nothing", "CXX": "/nowhere/c++"}, "/nowhere/c++"),
    ],
)
def test_without_a_compiler_the_last_line_says_what_is_missing(
    tmp_path: Path, variables: dict[str, str], named: str
) -> None:
    lines = _build(tmp_path, **variables)
    assert lines[-1].startswith("gsprune: no C++ compiler was found (")
    assert named in lines[-1].partition(")")[0]
    assert "apt-get install g++" in lines[-1]
    assert "Traceback" not in "\n".join(lines)


def test_a_compiler_that_fails_is_named_in_the_last_line(tmp_path: Path) -> None:
    compiler = tmp_path / "old-compiler"
    compiler.write_text("#!/bin/sh\necho 'unknown option -std=c++17' >&2\nexit 1\n")
    compiler.chmod(0o755)
    lines = _build(tmp_path, CXX=str(compiler), PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert lines[-1].startswith("gsprune: the C++ core did not compile (")
    assert "GCC 9, Clang 10 or newer" in lines[-1]


def test_the_sdist_holds_what_the_tests_read() -> None:
    root = Path(__file__).parents[1]
    manifest = (root / "MANIFEST.in").read_text().split()
    read = ["tests", "bench", "docs", "examples", "scripts", "csrc", "kernels", ".ci", "constraints.txt", "mkdocs.yml"]
    assert [name for name in read if name not in manifest] == []
