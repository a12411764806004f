#!/usr/bin/env bash
# The core's tests on the oldest torch that is supported (the one of pyproject.toml), in an environment of its own.
# PyPI's torch 2.6 for Linux on x86-64 is built for CUDA: 0.8 GB, and it does not import without another 2.5 GB of NVIDIA's
# libraries. Where PyTorch's own index can be reached, the build for CPUs is smaller:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu TORCH_BUILD=+cpu scripts/oldest_torch.sh
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
# shellcheck disable=SC1091
. "$scratch/venv/bin/activate"
oldest=$(sed -nE 's/^dependencies = \["torch>=([0-9.]+)".*/\1/p' pyproject.toml)
pip install -q "torch==$oldest.0${TORCH_BUILD:-}" 'numpy<2' pytest hypothesis gymnasium
pip install -q .
pytest tests/core tests/rewrite tests/tracing tests/pruning tests/importance tests/selection tests/test_invariants.py
