"""From a run folder to a policy file: what the commands `export` and `latency` do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gsprune
from gsprune.cli import main
from gsprune.errors import install_command
from gsprune.networks import ActorCritic, QNetwork, build_encoder, example_frames
from gsprune.rl.envs.procgen import ACTION_MEANINGS, NUM_ACTIONS
from gsprune.rl.exporting.frames import played_frames
from gsprune.rl.trained import dense_network, load_agent
from gsprune.rl.training.checkpoints import save_checkpoint

EXTRA = f"the extra 'export' is not installed: {install_command('export')}"
EXAMPLE = Path(__file__).parents[3] / "examples" / "play_onnx.py"


def write_run(folder: Path, algorithm: str, num_features: int = 256) -> Path:
    folder.mkdir()
    config = {
        "algorithm": algorithm, "env_id": "bigfish", "distribution_mode": "easy", "seed": 1, "encoder": "nature",
        "width": 1, "pruning": "group", "num_features": num_features,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    heads: Any = QNetwork if algorithm == "dqn" else ActorCritic
    model = heads(build_encoder("nature", 1, num_features=num_features), NUM_ACTIONS)
    optimizer = torch.optim.Adam(model.parameters())
    gsprune.prune_step(model, 0.5, example_inputs=example_frames(), optimizer=optimizer)
    save_checkpoint(folder / "checkpoints", 100, model, optimizer, {})
    return folder


def test_played_frames_are_real_differ_and_come_again(tmp_path: Path) -> None:
    agent = load_agent(write_run(tmp_path / "run", "dqn"))
    frames = played_frames(agent, 70, seed=1)
    assert (frames.shape, frames.dtype) == ((70, 3, 64, 64), np.uint8)
    assert frames.flags.c_contiguous
    assert len(np.unique(frames.reshape(70, -1), axis=0)) > 40  # games may begin alike
    assert np.array_equal(frames, played_frames(agent, 70, seed=1))
    assert not np.array_equal(frames, played_frames(agent, 70, seed=2))


def test_the_actions_are_procgens() -> None:
    from gsprune.rl.envs.procgen import import_procgen

    combos = import_procgen()(num=1, env_name="bigfish").get_combos()
    named = [", ".join(key.lower() if len(key) > 1 else key for key in keys) or "nothing" for keys in combos]
    assert tuple(named) == ACTION_MEANINGS


def test_a_run_is_exported_quantised_and_played_without_pytorch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript", reason=EXTRA)
    pytest.importorskip("onnxruntime", reason=EXTRA)
    run = write_run(tmp_path / "run", "ppo")
    (run / "eval.json").write_text(json.dumps({"step": 100, "tracks": {"train": {"mean": 2.0}, "test": {"mean": 1.0}}}))
    options = ["--frames", "60", "--int8", "--calibration-frames", "32", "--episodes", "8", "--num-envs", "8"]
    assert main(["export", str(run), *options]) == 0
    printed = capsys.readouterr().out
    assert "the same choice in 60" in printed
    assert "return: float32" in printed
    folder = run / "export"
    assert sorted(path.name for path in folder.iterdir()) == [
        "policy.int8.onnx", "policy.int8.onnx.json", "policy.onnx", "policy.onnx.json",
    ]  # fmt: skip

    contract = json.loads((folder / "policy.onnx.json").read_text())
    assert contract["action"]["choose"] == "sample from softmax(logits)"
    assert contract["action"]["meanings"][4] == "nothing"
    assert contract["training"]["steps"] == 100
    assert contract["training"]["dense"]["widths"]["encoder.linear"] == 256
    assert contract["network"]["widths"]["encoder.linear"] == 128
    assert contract["return"] == {"source": "eval.json", "steps": 100, "train": 2.0, "test": 1.0}
    assert "critic" not in str(contract)
    quantized = json.loads((folder / "policy.int8.onnx.json").read_text())
    assert quantized["int8"]["loss"] == pytest.approx(
        quantized["int8"]["test_return_float32"] - quantized["int8"]["test_return"]
    )
    assert quantized["file"]["bytes"] < 0.5 * contract["file"]["bytes"]

    code = (
        "import sys; sys.modules['torch'] = sys.modules['gsprune'] = None; sys.argv = ['play', sys.argv[1]];"
        f"import runpy, warnings; warnings.simplefilter('ignore'); runpy.run_path({str(EXAMPLE)!r})"
    )
    command = [sys.executable, "-c", code, str(folder / "policy.onnx")]
    played = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "10 episodes of bigfish, mean return" in played.stdout


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 110


def test_q_values_go_out_as_a_program_of_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", "dqn")
    out = tmp_path / "q.pt2"
    assert main(["export", str(run), "--format", "torch", "--frames", "20", "--batch", "1", "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out.replace("\n", "")
    contract = json.loads((tmp_path / "q.pt2.json").read_text())
    assert contract["outputs"] == [{"name": "q_values", "shape": [1, 15], "dtype": "float32"}]
    assert contract["action"]["choose"] == "argmax"
    assert contract["check"]["examples"] == 20
    assert contract["return"] is None


def test_bad_options_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", "dqn")
    assert main(["export", str(run), "--format", "torch", "--int8"]) == 2
    assert "`int8` needs --format onnx" in capsys.readouterr().err
    assert main(["export", str(run), "--frames", "0"]) == 2
    assert main(["latency", str(run), "--seconds", "0"]) == 2
    assert main(["latency", str(run), "--threads", "0", "--engines", "eager"]) == 2
    assert main(["latency", str(run), "--engines"]) == 2
    assert main(["latency", str(run), "--out", str(run / "config.json")]) == 2
    assert "`threads` must be numbers of at least 1" in capsys.readouterr().err
    for words in (["--encoder", "impala"], ["--width", "1"], ["--sparsity", "0.5"], ["--round-to", "8"]):
        assert main(["latency", str(run), *words, "--out", str(tmp_path / "out")]) == 2
        name = words[0].removeprefix("--").replace("-", "_")
        assert f"`{name}` is for a built-in network" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_quantised_policy_of_continuous_actions_is_compared_by_its_outputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript", reason=EXTRA)
    pytest.importorskip("onnxruntime", reason=EXTRA)
    config = {
        "algorithm": "ppo", "env_id": "lights:Robots.Arm", "env_options": "actions=box,asynchronous=false", "seed": 1,
        "encoder": "lights:Encoder", "width": 1, "pruning": "none", "distribution_mode": "easy",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, _ = dense_network(config)
    save_checkpoint(tmp_path / "checkpoints", 0, model, torch.optim.Adam(model.parameters()), {})
    options = ["--frames", "8", "--int8", "--calibration-frames", "32", "--episodes", "2", "--num-envs", "2"]
    assert main(["export", str(tmp_path), *options]) == 0
    assert "int8): on 8 frames the outputs differ by at most" in capsys.readouterr().out
    assert json.loads((tmp_path / "export" / "policy.int8.onnx.json").read_text())["check"]["same_choice"] is None


def test_each_run_is_compared_with_its_own_dense_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [str(write_run(tmp_path / f"run-{features}", "ppo", features)) for features in (256, 32)]
    seen: dict[str, str] = {}

    def record(_: Any, references: dict[str, str], *__: Any, **___: Any) -> None:
        seen.update(references)
        raise KeyboardInterrupt

    monkeypatch.setattr("gsprune.cli.latency.time_engines", record)
    assert main(["latency", *runs, "--out", str(tmp_path)]) == 130
    assert (seen["run-256"], seen["run-32"]) == ("ppo nature x1, dense", "run-32, dense")


def test_latencies_of_a_run_and_its_dense_network_become_a_table_and_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = write_run(tmp_path / "run", "ppo"), tmp_path / "out"
    options = ["--engines", "eager", "--batches", "1", "2", "--threads", "1", "--seconds", "0.05", "--out", str(out)]
    assert main(["latency", str(run), *options]) == 0
    assert "ppo nature x1, dense" in capsys.readouterr().out
    rows = json.loads((out / "latency.json").read_text())
    assert [(row["network"], row["batch"]) for row in rows] == [
        ("ppo nature x1, dense", 1), ("run", 1), ("ppo nature x1, dense", 2), ("run", 2),
    ]  # fmt: skip
    assert all(0 < row["median_ms"] <= row["p99_ms"] for row in rows)
    assert "| run | 2 | eager | 1 |" in (out / "latency.md").read_text()
    assert (out / "latency.png").read_bytes()[:4] == b"\x89PNG"
