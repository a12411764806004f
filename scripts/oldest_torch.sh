#!/usr/bin/env bash
# The core's tests on the oldest torch that is supported (the one of pyproject.toml), in an environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
# shellcheck disable=SC1091
. "$scratch/venv/bin/activate"
oldest=$(sed -nE 's/^dependencies = \["torch>=([0-9.]+)".*/\1/p' pyproject.toml)
pip install -q "torch==$oldest.*" 'numpy<2' pytest hypothesis gymnasium
pip install -q .
pytest tests/test_prune_step.py tests/test_invariants.py tests/tracing tests/rewrite tests/importance tests/core
