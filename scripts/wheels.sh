#!/usr/bin/env bash
# Builds the wheel of the present Python from the sdist and checks it.
# Wheels for CPython 3.10 to 3.14 are made by cibuildwheel, whose configuration is [tool.cibuildwheel] of pyproject.toml:
# manylinux_2_28 for x86-64 and aarch64, each tested in a fresh environment without a compiler. It needs Docker:
#   pipx run cibuildwheel --platform linux
# .github/workflows/wheels.yml also builds on macOS and Windows.
# Usage: scripts/wheels.sh [folder]
set -euo pipefail
out=$(realpath -m "${1:-dist}")
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q build auditwheel
"$scratch/venv/bin/python" -m build --outdir "$out" .
for wheel in "$out"/gsprune-*-linux_*.whl; do
    "$scratch/venv/bin/auditwheel" show "$wheel"
done
