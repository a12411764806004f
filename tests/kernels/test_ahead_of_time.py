"""The kernels compile for the GPUs they are meant for, without one, and don't spill."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_ahead_of_time_and_spill_nothing(capability: int) -> None:
    # A process of its own, since one that interprets kernels cannot compile any.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT / "scripts")
    kernels = ["score[abs]", "score[square_product]", "fold", "slice"]
    command = [sys.executable, "scripts/kernel_resources.py", "--json", "--capability", str(capability), "--kernel"]
    run = subprocess.run([*command, *kernels], env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "warn" not in run.stderr.lower(), run.stderr
    found = json.loads(run.stdout)
    assert [resources["kernel"] for resources in found] == kernels
    for resources in found:
        assert resources["architecture"] == f"sm_{capability}"
        assert resources["spilled_bytes"] == 0, resources
        assert resources["float_fusions"] == 0, (
            f"a fused multiply-add rounds otherwise than the definition: {resources}"
        )
        # 65536 registers per multiprocessor: at least two programs of 8 warps share one.
        assert 0 < resources["registers"] * resources["warps"] * 32 * 2 <= 65536, resources
