"""`process_group=`: every rank chooses the same channels, or nothing is changed on any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rank_workers
import torch
from by_group import REDUCE
from ranks import run_ranks
from torch import nn

import gsprune
from gsprune.backends import CppBackend
from gsprune.importance import ScoreSource, resolve_importance
from gsprune.tracing.structure import Structure


def _statistics(model: nn.Module, importance: str, x: torch.Tensor) -> dict[str, np.ndarray]:
    structure = Structure(gsprune.trace(model))
    criterion = resolve_importance(rank_workers.criterion(importance, x)).criterion
    source = ScoreSource(structure, frozenset(), dict(model.named_parameters()), CppBackend(1), model)
    return criterion.statistics(source)  # type: ignore[union-attr]


@pytest.mark.parametrize("importance", ["taylor", "hessian", "activation"])
def test_scores_of_data_are_those_of_all_ranks_together(tmp_path: Path, importance: str) -> None:
    first, second = run_ranks(rank_workers.prune_on_own_half, tmp_path / "store", importance)
    assert all(torch.equal(first[name], second[name]) for name in first)
    # The definition: the mean of both halves' statistics, on one process.
    halves = []
    for x in rank_workers.batch().chunk(2):
        model = rank_workers.network()
        rank_workers.backward(model, x)
        halves.append(_statistics(model, importance, x))
    model = rank_workers.network()
    chosen = resolve_importance(rank_workers.criterion(importance, x))
    reduce = REDUCE[str(chosen.reduction)]
    kept = {
        name: np.sort(np.argsort(-reduce((halves[0][name] + halves[1][name]) / 2), kind="stable")[:16])
        for name in halves[0]
    }
    assert torch.equal(first["0.weight"], model[0].weight.detach()[kept["0"]])
    assert torch.equal(first["4.weight"], model[4].weight.detach()[:, kept["2"]])
    # One rank alone would have kept others: the test would fail without the average.
    alone = np.sort(np.argsort(-reduce(halves[0]["0"]), kind="stable")[:16])
    assert importance == "activation" or not np.array_equal(alone, kept["0"])


def test_compensation_over_ranks_is_that_of_one_process_with_all_the_data(tmp_path: Path) -> None:
    first, second = run_ranks(rank_workers.compensate_on_own_half, tmp_path / "store")
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = rank_workers.compensate(rank_workers.batch())
    for name in first:
        torch.testing.assert_close(first[name], alone[name], rtol=1e-9, atol=1e-9)
    half = rank_workers.compensate(rank_workers.batch().chunk(2)[0])
    assert not torch.allclose(first["2.weight"], half["2.weight"], atol=1e-3)


def test_the_reconstruction_score_over_ranks_is_that_of_one_process_with_all_the_data(tmp_path: Path) -> None:
    first, second = run_ranks(rank_workers.score_on_own_half, tmp_path / "store")
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = rank_workers.compensate(rank_workers.batch(), importance="reconstruction")
    for name in first:
        torch.testing.assert_close(first[name], alone[name], rtol=1e-6, atol=1e-6)


def test_a_dry_run_over_ranks_predicts_and_changes_nothing(tmp_path: Path) -> None:
    for change, weights in run_ranks(rank_workers.rehearse_on_own_half, tmp_path / "store"):
        assert 0 < change < 1
        assert all(torch.equal(weights[name], tensor) for name, tensor in rank_workers.network().state_dict().items())


def test_weights_are_bit_identical_after_every_step_of_a_ddp_loop(tmp_path: Path) -> None:
    (first, widths), (second, _) = run_ranks(rank_workers.train_with_ddp, tmp_path / "store")
    assert widths == [16, 16]
    for mine, other in zip(first, second, strict=True):
        assert all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.mark.parametrize("kind", ["weights", "sparsity"])
def test_another_choice_is_an_error_on_all_ranks_with_both_hashes(tmp_path: Path, kind: str) -> None:
    results = run_ranks(rank_workers.failure, tmp_path / "store", kind)
    texts = {text for _, text, _ in results}
    assert len(texts) == 1
    text = texts.pop()
    assert "the ranks do not agree on which channels to keep" in text
    hashes = [part.split(" has ")[1][:16] for part in text.split("hashes: ")[1].split(")")[0].split(", ")]
    assert len(set(hashes)) == 2
    assert "rank 0 has" in text
    assert "rank 1 has" in text
    assert "start with equal weights on all ranks" in text
    assert [(error, same) for error, _, same in results] == [("DistributedError", True)] * 2


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [("ignore", "ValueError", "no such layer"), ("state", "RewriteError", "odd")],
)
def test_a_rank_that_fails_fails_all_and_nothing_is_changed(tmp_path: Path, kind: str, error: str, words: str) -> None:
    other, failing = run_ranks(rank_workers.failure, tmp_path / "store", kind)
    assert failing[0] == error
    assert words in failing[1]
    assert other[0] == "DistributedError"
    assert other[1].startswith(f"rank 1 failed ({error}")
    assert other[2]
    assert failing[2]


def test_a_nan_on_one_rank_is_an_error_on_all(tmp_path: Path) -> None:
    results = run_ranks(rank_workers.failure, tmp_path / "store", "nan")
    assert [(error, same) for error, _, same in results] == [("ScoreError", True)] * 2


def test_without_a_group_a_rank_steps_alone(tmp_path: Path) -> None:
    assert run_ranks(rank_workers.step_without_group, tmp_path / "store") == [True, True]


def test_what_is_no_process_group_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`process_group` must be a torch\.distributed process group"):
        gsprune.prune_step(rank_workers.network(), 0.5, process_group=2)  # type: ignore[arg-type]


def test_a_measurement_is_the_first_ranks_on_all(tmp_path: Path) -> None:
    assert run_ranks(rank_workers.measure, tmp_path / "store") == [10.0, 10.0]
