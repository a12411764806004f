"""Workers: the same bits for any number of threads, errors that reach the caller, cores that may be used."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gsprune.rl.training import cores
from gsprune.rl.training.cores import default_workers, usable_cores
from gsprune.rl.training.workers import Workers


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 32), nn.Tanh(), nn.Linear(32, 4), nn.LayerNorm(4)
    )


def pieces(count: int = 5, last: int = 3) -> list[Tensor]:
    return [torch.randn(7, 3, 8, 8), *(torch.randn(7, 3, 8, 8) for _ in range(count - 2)), torch.randn(last, 3, 8, 8)]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_gradients_have_the_bits_of_successive_backward_calls(count: int) -> None:
    model, data = network(), pieces()
    for piece in data:
        model(piece).square().mean().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    def loss_of(piece: Tensor) -> tuple[Tensor, float]:
        loss = model(piece).square().mean()
        return loss, loss.item()

    losses = Workers(count).backward(list(model.parameters()), loss_of, data)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert len(gradients) == len(expected) == 8
    assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(gradients, expected, strict=True))
    assert losses == [model(piece).square().mean().item() for piece in data]


def test_a_parameter_without_a_part_in_the_loss_gets_no_gradient() -> None:
    used, unused = nn.Linear(2, 2), nn.Linear(2, 2)
    unused.weight.grad = torch.ones(2, 2)
    parameters = [*used.parameters(), *unused.parameters()]
    Workers(2).backward(parameters, lambda x: (used(x).sum(), None), [torch.ones(1, 2), torch.ones(1, 2)])
    assert unused.weight.grad is None
    assert used.bias.grad.tolist() == [2.0, 2.0]


def test_a_frozen_parameter_gets_no_gradient() -> None:
    frozen, trained = nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2)
    parameters = [*frozen.parameters(), *trained.parameters()]
    Workers(1).backward(parameters, lambda x: (trained(frozen(x)).sum(), None), [torch.ones(1, 2), torch.ones(1, 2)])
    assert frozen.weight.grad is None
    assert trained.bias.grad.tolist() == [2.0, 2.0]


def test_results_come_in_the_order_of_the_pieces() -> None:
    first_may_end = threading.Event()

    def result(piece: int) -> int:
        if piece == 0:
            assert first_may_end.wait(30)
        if piece == 1:
            first_may_end.set()
        return piece * piece

    assert list(Workers(2).map(result, range(9))) == [n * n for n in range(9)]


def test_one_worker_computes_in_the_calling_thread() -> None:
    assert set(Workers(1).map(lambda _: threading.get_ident(), range(3))) == {threading.get_ident()}
    assert threading.get_ident() not in set(Workers(2).map(lambda _: threading.get_ident(), range(3)))


def test_workers_use_one_thread_of_torch_each_and_leave_the_callers_alone() -> None:
    before = torch.get_num_threads()
    assert set(Workers(2).map(lambda _: torch.get_num_threads(), range(4))) == {1}
    assert torch.get_num_threads() == before


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    def fail(piece: int) -> int:
        if piece == 2:
            raise ValueError("piece 2")
        return piece

    with pytest.raises(ValueError, match="piece 2"):
        list(Workers(2).map(fail, range(5)))


@pytest.mark.parametrize(
    ("text", "expected"), [("max 100000", 4), ("150000 100000", 1), ("300000 100000", 3), ("50000 100000", 1)]
)
def test_usable_cores_respects_the_limit_of_the_control_group(
    text: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(text + "\n")
    monkeypatch.setattr(cores, "_CGROUP_V2", tmp_path / "cpu.max")
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert usable_cores() == expected


def test_usable_cores_without_control_groups_is_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_CGROUP_V2", tmp_path / "none")
    monkeypatch.setattr(cores, "_CGROUP_V1", tmp_path / "none")
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert usable_cores() == 2


@pytest.mark.parametrize(
    ("limit", "threads", "expected"), [("", 1, 4), ("3", 1, 3), ("1", 1, 1), ("", 2, 2), ("", 8, 1)]
)
def test_default_workers_and_their_threads_fit_the_cores(
    limit: str, threads: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert default_workers(threads) == expected


def test_a_forward_in_pieces_has_the_bits_of_a_whole_one_and_no_gradients() -> None:
    model, rows = network(), torch.randn(37, 3, 8, 8)
    pieces = Workers(3).forward(model, rows)
    assert len(pieces) == 4
    assert not pieces[0].requires_grad
    assert torch.equal(torch.cat(pieces), model(rows))
    assert len(Workers(1, splits_forwards=False).forward(model, rows)) == 1
