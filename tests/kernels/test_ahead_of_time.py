"""The kernels compile for the GPUs they are meant for, without one, and don't spill."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


KERNELS = ["score[abs]", "score[square_product]", "fold", "slice"]


@pytest.fixture(scope="module")
def resources() -> dict[tuple[str, str], dict[str, Any]]:
    """What every kernel needs on every architecture."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    # A process of its own, since one that interprets kernels cannot compile any.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT / "scripts")
    command = [sys.executable, "scripts/kernel_resources.py", "--json", "--capability", "80", "90", "--kernel"]
    run = subprocess.run([*command, *KERNELS], env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "warn" not in run.stderr.lower(), run.stderr
    found = json.loads(run.stdout)
    assert len(found) == 2 * len(KERNELS)
    return {(each["kernel"], each["architecture"]): each for each in found}


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_kernels_compile_ahead_of_time_and_spill_nothing(
    resources: dict[tuple[str, str], dict[str, Any]], kernel: str, architecture: str
) -> None:
    found = resources[kernel, architecture]
    assert found["spilled_bytes"] == 0
    assert found["float_fusions"] == 0, "a fused multiply-add rounds otherwise than the definition"
    # 65536 registers per multiprocessor: at least two programs of 8 warps share one.
    assert 0 < found["registers"] * found["warps"] * 32 * 2 <= 65536
