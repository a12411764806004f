from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gsprune.cli import main
from gsprune.cli.eval import _document
from gsprune.networks import ActorCritic, build_encoder
from gsprune.rl.envs.procgen import NUM_ACTIONS
from gsprune.rl.evaluation.protocol import ProtocolConfig
from gsprune.rl.trained import load_agent
from gsprune.rl.training.checkpoints import save_checkpoint
from gsprune.rl.training.run_folder import RunFolder

pytest.importorskip("procgen")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one checkpoint, whose process still holds the lock."""
    folder = tmp_path / "run"
    config = {"env_id": "bigfish", "distribution_mode": "easy", "seed": 1, "encoder": "nature", "width": 1}
    holder = RunFolder.create(folder, "ppo", config)
    torch.manual_seed(0)
    model = ActorCritic(build_encoder("nature", 1), NUM_ACTIONS)
    save_checkpoint(folder / "checkpoints", 512, model, torch.optim.Adam(model.parameters()), {})
    holder.close()
    return folder


def evaluate(run: Path, *words: str) -> int:
    # One thread: such small batches gain nothing from more, which wait for each other on a busy machine.
    options = ["--episodes", "2", "--num-envs", "2", "--device", "cpu", "--torch-threads", "1"]
    return main(["eval", str(run), *options, *words])


def test_an_evaluation_is_printed_and_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(run) == 0
    document = json.loads((run / "eval.json").read_text())
    assert (document["step"], document["checkpoint"], document["actions"]) == (512, "step-000000000512", "sampled")
    assert (document["num_envs"], document["episodes_per_env"], document["seed"]) == (2, 1, 1_000_001)
    assert list(document["tracks"]) == ["train", "test"]
    assert len(document["tracks"]["test"]["returns"]) == 2
    out = capsys.readouterr().out
    assert "bigfish (easy) after 512 steps, sampled actions" in out
    assert "eval.json" in out


def test_a_run_that_is_going_on_is_evaluated_without_touching_its_lock(run: Path) -> None:
    holder = RunFolder.open(run)
    lock = (run / ".lock").read_text()
    assert evaluate(run) == 0
    assert (run / ".lock").read_text() == lock
    with pytest.raises(ValueError, match="in use"):
        RunFolder.open(run)
    holder.close()


def test_the_noise_track_is_played_on_request_and_results_repeat(run: Path) -> None:
    documents = []
    for _ in range(2):
        assert evaluate(run, "--noise", "--seed", "3") == 0
        documents.append(json.loads((run / "eval.json").read_text()))
    assert list(documents[0]["tracks"]) == ["train", "test", "test, noise 5", "test, noise 15", "test, noise 30"]
    assert documents[0] == documents[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--episodes", "0"], "`episodes` must be at least 1, got 0"),
        (["--torch-threads", "0"], "`torch_threads` must be at least 1, got 0"),
        (["--device", "tpu"], "`device` must be auto, cpu, cuda or cuda:N, got 'tpu'"),
    ],
)
def test_bad_options_are_refused(run: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["eval", str(run), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (run / "eval.json").exists()


def test_a_folder_that_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_the_document_names_a_difficulty_only_where_there_are_levels(run: Path) -> None:
    agent = load_agent(run, "cpu")
    config = ProtocolConfig(agent.config)
    assert json.loads(_document({}, agent, config))["distribution_mode"] == "easy"
    agent = replace(agent, environment=replace(agent.environment, has_test_split=False))
    assert "distribution_mode" not in json.loads(_document({}, agent, config))
