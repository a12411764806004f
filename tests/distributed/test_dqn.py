"""DQN on two ranks: one network, a replay each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rank_trainers import Outcome, rows, train, train_rank
from ranks import run_ranks

from gsprune.rl.algorithms.dqn.config import DQNConfig

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = DQNConfig(
    encoder="nature",
    width=1,
    total_timesteps=120,
    num_envs=3,
    batch_size=7,
    replay_capacity=90,
    replay_spare=48,
    learning_starts=30,
    target_interval=30,
    prune_interval=4,
    prune_begin=0.3,
    log_interval=8,
    torch_threads=1,
    env_threads=1,
    eval_episodes=0,
    eval_interval_episodes=0,
    checkpoint_minutes=0,
)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], list[Outcome]]:
    folder = tmp_path_factory.mktemp("together")
    outcomes = run_ranks(train_rank, folder / "store", folder / "run", TINY, None, False)
    assert not list((folder / "run").glob("replay*"))  # the training is over
    return rows(folder / "run"), outcomes


def test_agent_and_target_are_bit_identical_across_ranks_after_every_step(together: Any) -> None:
    log, (first, second) = together
    assert first.digests == second.digests
    assert log[-1]["charts/updates"] == 31
    assert len(set(first.digests)) > 31
    assert log[-1]["pruning/channel_sparsity"] > 0.7
    assert log[-1]["charts/replay_size"] == 3 * (30 - 3)  # of both ranks


def test_the_same_is_explored_as_by_one_process(tmp_path: Path, together: Any) -> None:
    # Before the first update nothing depends on what is sampled.
    config = replace(TINY, total_timesteps=24, learning_starts=23, prune_begin=0.9, prune_end=1.0, prune_interval=100)
    train(tmp_path / "alone", config, stop_after=1)
    keys = [key for key in together[0][0] if key.startswith("charts/") and key != "charts/epsilon"]
    one = rows(tmp_path / "alone")[0]
    assert {key: one[key] for key in keys if "update" not in key} == {
        key: together[0][0][key] for key in keys if "update" not in key
    }


def test_a_run_resumed_on_as_many_ranks_equals_the_uninterrupted_one(tmp_path: Path, together: Any) -> None:
    run_ranks(train_rank, tmp_path / "a", tmp_path / "run", TINY, 3, False)
    assert sorted(file.name for file in (tmp_path / "run").glob("replay*")) == [
        "replay-0-of-2.bin",
        "replay-1-of-2.bin",
    ]
    outcomes = run_ranks(train_rank, tmp_path / "b", tmp_path / "run", TINY, None, True)
    assert rows(tmp_path / "run") == together[0]
    assert outcomes[0].digests[-1] == together[1][0].digests[-1]


def test_on_another_number_of_ranks_a_run_fills_its_replay_anew_and_says_so(tmp_path: Path, together: Any) -> None:
    run_ranks(train_rank, tmp_path / "a", tmp_path / "run", TINY, 3, False)
    outcome = train(tmp_path / "run", TINY, resume=True)
    assert any("replay.bin, which is missing, and is lost: learning goes on after 30" in text for text in outcome.lines)
    log = rows(tmp_path / "run")
    assert [row["step"] for row in log] == [row["step"] for row in together[0]]
    assert log[3]["charts/updates"] == log[2]["charts/updates"]
    assert log[4]["charts/updates"] > log[3]["charts/updates"]
    assert not list((tmp_path / "run").glob("replay*"))
