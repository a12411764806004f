"""What a step does with memory: how much it takes, that steps do not add up, and that old views stay what they were."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_features import needs_exchange_table

import gsprune
from gsprune import _core


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    """Weights of 0.6 MB each, so that all of them come from the pool."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 384), *[nn.Linear(384, 384) for _ in range(4)], nn.Linear(384, 2))
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return model, optimizer


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    moments = [value for state in optimizer.state.values() for value in state.values()]
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [*(parameter.detach() for parameter in model.parameters()), *grads, *moments]


def test_a_step_takes_no_more_than_what_it_keeps() -> None:
    model, optimizer = trained()
    gsprune.prune_step(model, 0.01, optimizer=optimizer, example_inputs=torch.zeros(1, 8))
    gc.collect()
    _core.memory.trim_reserve()
    before = _core.memory.pool_use()[0]
    old = everything(model, optimizer)  # holds the old memory, as it is held in the middle of a step
    held = [tensor.detach() for tensor in old]
    gsprune.prune_step(model, 0.1, optimizer=optimizer)
    kept = sum(tensor.nbytes for tensor in everything(model, optimizer))
    assert _core.memory.pool_use()[0] - before <= 1.02 * kept
    assert len(held) == len(old)


@needs_exchange_table
def test_repeated_steps_do_not_grow_the_process() -> None:
    model, optimizer = trained()
    seen = []
    for step in range(1, 16):
        gsprune.prune_step(model, 0.02 * step, optimizer=optimizer, example_inputs=torch.zeros(1, 8))
        seen.append(sum(_core.memory.pool_use()))
    assert max(seen[2:]) <= 1.05 * seen[1]


def resident_bytes() -> int:
    """Memory of this process that no file stands behind, as the system counts it, also what it has swapped out.

    Pages of files (torch's libraries) come and go as the system likes.
    """
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return sum(1024 * int(words[1]) for words in lines if words[0] in ("RssAnon:", "RssShmem:", "VmSwap:"))


def prune_and_train_a_fresh_network() -> None:
    """Six steps of training, each with a pruning step; 9.4 MB of weights, gradients and moments to begin with."""
    model, optimizer = trained()
    for step in range(1, 7):
        report = gsprune.prune_step(model, 0.05 * step, optimizer=optimizer, example_inputs=torch.zeros(1, 8))
        assert report.changed
        optimizer.zero_grad()
        model(torch.ones(4, 8)).square().sum().backward()
        optimizer.step()


def grown_by_eight_loops() -> int:
    """Bytes that stay resident."""
    gc.collect()
    before = resident_bytes()
    for _ in range(8):
        prune_and_train_a_fresh_network()
    gc.collect()
    return resident_bytes() - before


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """Small layers: torch's threads would wait for each other longer than they work."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell resident memory here")
def test_training_loops_that_prune_do_not_grow_the_resident_memory() -> None:
    # What the pool does not count would show here: objects, small tensors, pages it believes to have given back. The
    # allocator may still settle what other tests have left; a leak grows in every round.
    for _ in range(3):
        prune_and_train_a_fresh_network()
    rounds = (grown_by_eight_loops() for _ in range(3))
    # Each loop replaces about 40 MB; a tenth of it, were it lost, would be 32 MB in the end.
    assert any(grown <= 16 << 20 for grown in rounds)


def test_views_of_what_was_there_before_are_never_overwritten() -> None:
    model, optimizer = trained()
    views, copies = [], []
    for step in range(1, 8):
        now = [tensor.detach().reshape(-1)[:5000] for tensor in everything(model, optimizer)]
        views += now
        copies += [view.clone() for view in now]
        gsprune.prune_step(model, 0.05 * step, optimizer=optimizer, example_inputs=torch.zeros(1, 8))
    assert all(torch.equal(view, copy) for view, copy in zip(views, copies, strict=True))
