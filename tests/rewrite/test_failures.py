"""A step that fails, wherever it does, leaves everything as it was, bit for bit."""

from __future__ import annotations

import copy
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from random_networks import Block, RandomNet, example, loss_of, randomize
from snapshots import frozen, snapshot
from torch.utils._python_dispatch import TorchDispatchMode

import gsprune

PACKAGE = str(Path(gsprune.__file__).parent)
PLACES = max(5, settings().max_examples // 4)


@dataclass
class Training:
    """All that a training holds beside the loop: network, followers, optimizers, schedulers, a loss scaler."""

    net: RandomNet
    target: RandomNet
    average: torch.optim.swa_utils.AveragedModel
    optimizers: list[torch.optim.Optimizer]
    schedulers: list[torch.optim.lr_scheduler.LRScheduler]
    scaler: torch.amp.GradScaler

    @classmethod
    def begun(cls) -> Training:
        blocks = (Block("Norm", 4, 0), Block("Residual", 4, 2), Block("Attention", 3, 1), Block("Grouped", 2, 0))
        # In float64, rounding leaves no doubt that would have the masked network run a second time.
        net = RandomNet(blocks, flatten=True, hidden=5).double()
        randomize(net, 0)
        target, average = copy.deepcopy(net), torch.optim.swa_utils.AveragedModel(net)
        groups = [{"params": list(net.stem.parameters()), "lr": 1e-2}, {"params": list(net.body.parameters())}]
        optimizers = [
            torch.optim.AdamW(groups, amsgrad=True),
            torch.optim.SGD(net.heads.parameters(), 0.1, momentum=0.9),
        ]
        schedulers = [torch.optim.lr_scheduler.StepLR(each, 1) for each in optimizers]
        scaler = torch.amp.GradScaler("cpu")
        scaler.scale(loss_of(net, example(net))).backward()
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            scaler.step(optimizer)
            scheduler.step()
        scaler.update()
        return cls(net, target, average, optimizers, schedulers, scaler)

    def prune(self) -> gsprune.PruneReport:
        return gsprune.prune_step(
            self.net,
            0.5,
            optimizer=self.optimizers,
            followers=(self.target, self.average),
            example_inputs=example(self.net),
            importance="taylor",
            rescale=True,
        )

    def contents(self) -> dict[str, Any]:
        """Everything, by value."""
        modules = {"net": self.net, "target": self.target, "average": self.average}
        held = {name: snapshot(module) for name, module in modules.items()}
        for part in held.values():
            del part["identities"], part["rng"]
        others = [*self.optimizers, *self.schedulers, self.scaler]
        return {**held, "others": [frozen(other.state_dict()) for other in others]}

    def identities(self) -> list[Any]:
        """What no step changes, done or not: which objects the tensors are, and the random generator."""
        modules = (self.net, self.target, self.average)
        tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        return [*[id(tensor) for tensor in tensors], torch.get_rng_state().tolist()]


def places(count: int) -> list[int]:
    """Some of the numbers below `count`, evenly, with the first and the last."""
    return sorted(set(np.linspace(0, count - 1, min(count, PLACES)).astype(int).tolist()))


class OutOfMemory(TorchDispatchMode):
    """The operation of one number fails, with all others as they are; without a number it only counts."""

    def __init__(self, number: int | None = None) -> None:
        super().__init__()
        self.number, self.count = number, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        if self.count - 1 == self.number:
            raise torch.OutOfMemoryError("no memory for one more")
        return func(*args, **(kwargs or {}))


def test_memory_that_runs_out_in_any_operation_changes_nothing() -> None:
    Training.begun().prune()  # fills caches of the process, which takes operations
    training = Training.begun()
    with OutOfMemory() as counted:
        training.prune()
    for number in places(counted.count):
        training = Training.begun()
        before, identities = training.contents(), training.identities()
        with pytest.raises(torch.OutOfMemoryError, match="no memory for one more"), OutOfMemory(number):
            training.prune()
        assert training.contents() == before, number
        assert training.identities() == identities
        assert training.prune().changed  # and goes on


@contextmanager
def at_line(number: int | None, act: Callable[[], None]) -> Iterator[list[int]]:
    """A block in which `act` is called once so many lines of the package have run; gives how many there were."""
    count = [0]

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            count[0] += 1
            if count[0] - 1 == number:
                act()
        return watch

    before = sys.gettrace()
    # Finalizers of what other tests left behind would run lines of the package in between.
    gc.collect()
    gc.disable()
    sys.settrace(watch)
    try:
        yield count
    finally:
        sys.settrace(before)
        gc.enable()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also in a process that a shell has started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_at_any_line_changes_nothing_or_comes_when_all_is_done() -> None:
    Training.begun().prune()  # the first step of a process runs lines that fill caches
    done = Training.begun()
    with at_line(None, lambda: None) as lines:
        done.prune()
    after, last = done.contents(), False
    for number in places(lines[0]):
        training = Training.begun()
        before, identities = training.contents(), training.identities()
        with pytest.raises(KeyboardInterrupt), at_line(number, lambda: signal.raise_signal(signal.SIGINT)):
            training.prune()
        contents = training.contents()
        assert contents in (before, after), number
        assert contents == after or not last, "an earlier interrupt came when all was done"
        last = contents == after
        assert training.identities() == identities
    assert last
