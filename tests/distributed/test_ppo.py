"""PPO on two ranks: one network, that of one process with all environments; a rank may die."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rank_trainers import Outcome, die_after, disagree, rows, train, train_rank, train_to_budget
from ranks import run_ranks

from gsprune.rl.algorithms.ppo.config import PPOConfig
from gsprune.rl.training.idle_options import without_idle

pytestmark = pytest.mark.usefixtures("one_thread")

# Three environments on two ranks: the shares differ, as the ranks' parts of the minibatches do.
TINY = PPOConfig(
    width=1,
    total_timesteps=120,
    num_envs=3,
    num_steps=8,
    num_minibatches=2,
    update_epochs=1,
    prune_begin=0.1,
    torch_threads=1,
    env_threads=1,
    eval_episodes=0,
    eval_interval_episodes=0,
    checkpoint_minutes=0,
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Outcome]:
    folder = tmp_path_factory.mktemp("alone") / "run"
    outcome = train(folder, TINY)
    return rows(folder), outcome


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], list[Outcome]]:
    folder = tmp_path_factory.mktemp("together")
    outcomes = run_ranks(train_rank, folder / "store", folder / "run", TINY, None, False)
    return rows(folder / "run"), outcomes


def assert_close(actual: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [row.keys() for row in actual] == [row.keys() for row in expected]
    for mine, other in zip(actual, expected, strict=True):
        for key in mine.keys() - {"pruning/kl", "pruning/value_error"}:  # each rank has frames of its own
            expected_value = pytest.approx(other[key], rel=2e-3, abs=1e-6) if "losses/" in key else other[key]
            assert mine[key] == expected_value, (key, mine["step"])


def test_weights_are_bit_identical_across_ranks_after_every_step(together: Any) -> None:
    first, second = together[1]
    assert len(first.digests) == 5 * (2 + 1)
    assert first.digests == second.digests
    assert len(set(first.digests)) > 12


def test_learning_equals_one_process_with_the_whole_batch(alone: Any, together: Any) -> None:
    assert_close(together[0], alone[0])
    widths = [value for key, value in together[0][-1].items() if key.startswith("width/")]
    assert max(widths) < 256 * 0.3
    for name, tensor in together[1][0].weights.items():
        torch.testing.assert_close(tensor, alone[1].weights[name], atol=2e-6, rtol=1e-5)


def test_a_run_resumed_on_as_many_ranks_equals_the_uninterrupted_one(tmp_path: Path, together: Any) -> None:
    run_ranks(train_rank, tmp_path / "a", tmp_path / "run", TINY, 2, False)
    assert len(rows(tmp_path / "run")) == 2
    run_ranks(train_rank, tmp_path / "b", tmp_path / "run", TINY, None, True)
    assert rows(tmp_path / "run") == together[0]


def test_a_run_goes_on_on_another_number_of_ranks(tmp_path: Path, alone: Any) -> None:
    run_ranks(train_rank, tmp_path / "a", tmp_path / "run", TINY, 2, False)
    train(tmp_path / "run", TINY, stop_after=1, resume=True)
    run_ranks(train_rank, tmp_path / "b", tmp_path / "run", TINY, None, True, size=3)
    assert_close(rows(tmp_path / "run"), alone[0])


def test_a_rank_that_dies_ends_the_others_soon_with_a_checkpoint_that_resumes(tmp_path: Path, alone: Any) -> None:
    survivor, dead = run_ranks(die_after, tmp_path / "store", tmp_path / "run", TINY, 3, may_die=1)
    assert dead is None
    text, seconds = survivor
    assert "another process of this training has ended or does not answer" in text
    assert seconds < 60  # the group itself would wait 120
    train(tmp_path / "run", TINY, resume=True)
    assert_close(rows(tmp_path / "run"), alone[0])


@pytest.mark.parametrize("method", ["redo", "unstructured"])
def test_other_methods_keep_the_ranks_equal_too(tmp_path: Path, method: str) -> None:
    base = replace(TINY, total_timesteps=48, prune_end=0.5)
    config = without_idle(replace(base, pruning=method), base)
    first, second = run_ranks(train_rank, tmp_path / "store", tmp_path / "run", config, None, False)
    assert first.digests == second.digests
    train(tmp_path / "alone", config)
    assert_close(rows(tmp_path / "run"), rows(tmp_path / "alone"))


def test_a_budget_of_milliseconds_is_met_by_the_first_ranks_clock_on_all(tmp_path: Path) -> None:
    config = replace(TINY, encoder="nature", target="latency", latency_budget_ms=1.0)
    first, second = run_ranks(train_to_budget, tmp_path / "store", tmp_path / "run", config)
    assert first.digests == second.digests
    assert rows(tmp_path / "run")[-1]["pruning/params"] == pytest.approx(1e5, rel=0.1)


def test_an_environment_of_ones_own_is_learnt_as_by_one_process_and_resumed(tmp_path: Path) -> None:
    own = replace(TINY, env_id="lights:Robots.Arm", env_options="asynchronous=false", encoder="lights:Encoder")
    config = replace(own, width=2)  # which an own encoder does not read
    run_ranks(train_rank, tmp_path / "a", tmp_path / "run", config, None, False)
    train(tmp_path / "alone", config)
    assert_close(rows(tmp_path / "run"), rows(tmp_path / "alone"))
    assert rows(tmp_path / "run")[-1]["width/encoder.conv"] == 2
    run_ranks(train_rank, tmp_path / "b", tmp_path / "stopped", config, 2, False)
    first, second = run_ranks(train_rank, tmp_path / "c", tmp_path / "stopped", config, None, True)
    assert first.digests == second.digests
    assert [row["step"] for row in rows(tmp_path / "stopped")] == [24, 48, 72, 96, 120]
    assert any("new episodes begin" in line for line in first.lines)


def test_networks_that_differ_stop_the_run_with_both_hashes(tmp_path: Path) -> None:
    texts = run_ranks(disagree, tmp_path / "store")
    assert texts[0] == texts[1]
    assert "the networks differ between the ranks (hashes: rank 0 has " in texts[0]
    hashes = [part.split(" has ")[1][:16] for part in texts[0].split("hashes: ")[1].split(")")[0].split(", ")]
    assert len(np.unique(hashes)) == 2


def test_more_ranks_than_environments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="`num_envs` must be at least the number of processes, 2, got 1"):
        run_ranks(train_rank, tmp_path / "store", tmp_path / "run", replace(TINY, num_envs=1, num_steps=24), 1, False)
