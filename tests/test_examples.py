"""The examples run as they stand."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize(
    ("name", "needs", "shown"),
    [
        ("plain_loop", "torch", "parameters 70,401 -> 3,693"),
        ("cleanrl_agent", "torch", "79.3% of channels"),
        ("sb3_callback", "stable_baselines3", "out_features=52"),
    ],
)
def test_an_example_runs_and_ends_smaller(name: str, needs: str, shown: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: policy"),
        (["policy.onnx"], "there is no policy.onnx.json; write policy and contract by: gsprune export RUN"),
    ],
)
def test_the_player_tells_its_usage(words: list[str], message: str, tmp_path: Path) -> None:
    for needed in ("onnxruntime", "procgen"):
        pytest.importorskip(needed)
    command = [sys.executable, str(EXAMPLES / "play_onnx.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "usage: play_onnx.py [-h] [--episodes EPISODES] policy" in done.stderr
    assert message in done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds threads by /proc")
def test_the_example_for_ddp_runs_on_two_ranks_and_leaves_no_thread_of_the_group(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    script = Path(__file__).parent / "support" / "leave_group.py"
    done = subprocess.run(
        [*command, str(script), str(EXAMPLES / "ddp_loop.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("left: []") == 2
    assert "step 400" in done.stdout
    assert "widths [52, 52]" in done.stdout
