"""Environments beside Procgen from the command line: each trains, prunes, resumes, evaluates, exports and plays."""

from __future__ import annotations

import json
import runpy
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from gsprune.arrays import AnyArray
from gsprune.cli import main
from gsprune.cli.progress import TrainingDisplay
from gsprune.errors import install_command
from gsprune.rl.envs.provider import EnvironmentRequest
from gsprune.rl.envs.registry import make_environments
from gsprune.rl.trained import TrainedAgent, load_agent
from gsprune.rl.training.metrics import read_metrics

EXAMPLE = Path(__file__).parents[2] / "examples" / "play_onnx.py"
EXTRAS = {"ale_py": "atari", "Box2D": "box2d", "cv2": "box2d"}
NATURE = ["--encoder", "nature", "--width", "1"]
OWN = ["--env-id", "lights:Robots.Arm", "--encoder", "lights:Encoder", "--env-options"]
IMAGES = "size=36,grey=true,stack=2,asynchronous=false"
COMMON = [
    "--num-envs", "2", "--total-timesteps", "160", "--checkpoint-minutes", "0", "--workers", "1", "--torch-threads",
    "1", "--eval-episodes", "0", "--eval-interval-episodes", "0", "--device", "cpu",
]  # fmt: skip
PPO = ["ppo", "--num-steps", "16", "--num-minibatches", "2", "--update-epochs", "1"]
DQN = [
    "dqn", "--batch-size", "8", "--replay-capacity", "200", "--replay-spare", "80", "--learning-starts", "32",
    "--log-interval", "16", "--prune-interval", "4",
]  # fmt: skip


class Call(NamedTuple):
    """One call of an exported policy: the observation (C, H, W) and the outputs."""

    frame: AnyArray
    outputs: AnyArray


@pytest.mark.parametrize(
    ("words", "package", "space"),
    [
        ([*PPO, "--env-id", "ALE/Pong-v5", "--env-options", "size=42", *NATURE], "ale_py", "discrete"),
        ([*DQN, "--env-id", "ALE/Pong-v5", "--env-options", "sticky_actions=0.25", *NATURE], "ale_py", "discrete"),
        (
            [*PPO, "--env-id", "CarRacing-v3", "--env-options", f"{IMAGES},max_episode_steps=20", *NATURE],
            "Box2D", "box",
        ),
        (
            [*PPO, "--env-id", "CarRacing-v3", "--env-options",
             "continuous=false,asynchronous=false,max_episode_steps=20", *NATURE],
            "Box2D", "discrete",
        ),
        ([*PPO, *OWN, f"{IMAGES},actions=several"], "cv2", "multi-discrete"),
        ([*PPO, *OWN, "actions=box,grey=true"], "gymnasium", "box"),
        ([*DQN, *OWN, "asynchronous=false,stack=3"], "gymnasium", "discrete"),
    ],
    ids=["ppo-pong", "dqn-pong", "car-box", "car-discrete", "own-several", "own-box", "own-dqn"],
)  # fmt: skip
def test_an_environment_trains_prunes_resumes_evaluates_exports_and_plays(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    package: str,
    space: str,
) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed: {install_command(EXTRAS.get(package, ''))}")
    for module in ("onnxscript", "onnxruntime", "av"):
        pytest.importorskip(module, reason=f"{module} is not installed: {install_command('test')}")
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 64)
        assert main(["train", *words, *COMMON, "--run-dir", str(run)]) == 130
    assert [row["step"] for row in read_metrics(run)] == [32, 64]
    assert main(["train", words[0], "--resume", str(run)]) == 0
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == [32, 64, 96, 128, 160]
    assert rows[-1]["pruning/channel_sparsity"] > 0.7

    assert main(["eval", str(run), "--episodes", "1", "--num-envs", "1", "--torch-threads", "1"]) == 0
    assert list(json.loads((run / "eval.json").read_text())["tracks"]) == ["test"]

    assert main(["export", str(run), "--frames", "16"]) == 0
    contract = json.loads((run / "export" / "policy.onnx.json").read_text())
    assert contract["action"]["space"] == space
    assert contract["outputs"][0]["name"] == {"dqn": "q_values"}.get(words[0], "means" if space == "box" else "logits")
    compare_playbacks(load_agent(run), run / "export" / "policy.onnx", contract["action"], monkeypatch)

    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["play", str(run), "--seconds", "0.5", "--fps", "8", "--scale", "1"]) == 0
    assert "easy" not in capsys.readouterr().out + str(contract)  # a word of Procgen
    assert all((run / f"play.{kind}").stat().st_size > 1000 for kind in ("mp4", "gif"))


def interrupt_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Ctrl-C as soon as the display shows so many environment steps."""
    show = TrainingDisplay.show

    def interrupted(display: TrainingDisplay, step: int, row: Any) -> None:
        show(display, step, row)
        if step == steps:
            signal.raise_signal(signal.SIGINT)

    patch.setattr(TrainingDisplay, "show", interrupted)


def compare_playbacks(agent: TrainedAgent, policy: Path, action: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    """Play an episode with the exported policy and with the agent: same observations, outputs and actions."""
    calls, choose = played_onnx(policy, patch)
    envs = make_environments(EnvironmentRequest.of_run(agent.config, split="test", is_training=False))
    mine, others = np.random.default_rng(0), np.random.default_rng(0)
    frames, _ = envs.reset()
    for call in calls[:15]:
        np.testing.assert_array_equal(call.frame, frames[0])
        with torch.no_grad():
            outputs = agent.acting_part(torch.from_numpy(frames)).numpy()[0]
        np.testing.assert_allclose(call.outputs, outputs, rtol=1e-4, atol=1e-5)
        actions = choose(action, outputs, mine), choose(action, call.outputs, others)
        np.testing.assert_allclose(*actions, rtol=1e-4, atol=1e-5)
        assert envs.single_action_space.contains(np.asarray(actions[0])[()])
        frames = envs.step(np.asarray(actions[1])[None])[0]
    envs.close()


def played_onnx(policy: Path, patch: pytest.MonkeyPatch) -> tuple[list[Call], Any]:
    """The calls of one episode of examples/play_onnx.py, and its function that chooses actions."""
    import onnxruntime

    calls: list[Call] = []

    class Session(onnxruntime.InferenceSession):
        def run(self, names: Any, inputs: dict[str, AnyArray]) -> Any:
            outputs = super().run(names, inputs)
            calls.append(Call(next(iter(inputs.values()))[0], outputs[0][0]))
            return outputs

    patch.setattr(onnxruntime, "InferenceSession", Session)
    patch.setattr(sys, "path", list(sys.path))
    patch.setattr(sys, "argv", ["play_onnx.py", str(policy), "--episodes", "1"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the environments' packages
        names = runpy.run_path(str(EXAMPLE))
    return calls, names["choose"]
