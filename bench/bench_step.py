"""The whole pruning step at every optimizer step: a small cut, a cached plan, gradients and both moments of Adam.

Beside it stand the floor ("read every weight once, copy what is kept of weights, gradients and moments"), the same in
plain torch, and Torch-Pruning's step, which moves the parameters alone.
"""

from __future__ import annotations

import gc
import itertools
import time
import warnings
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from cases import KEPT, extra_info, gpu_backend, trained
from floors import Floor
from networks import NETWORKS
from torch import Tensor, nn

import gsprune

# A network shrinks by a tenth with every step, so few of them are alike; several networks give enough.
FRESH_NETWORKS = 3
STEPS = 8  # timed, of each
WARM_UP = 2  # not timed: then the memory of the dense network is back, and two sets of blocks take turns
SETTLING_S = 0.02  # torch's OpenMP threads go on spinning for some milliseconds after its operations

Steps = tuple[nn.Module, Callable[[], None]]


def _steps_of_gsprune(name: str) -> Steps:
    model, example, optimizer = trained(name)
    sparsities = (1 - KEPT**step for step in itertools.count(1))

    def step() -> None:
        report = gsprune.prune_step(model, next(sparsities), optimizer=optimizer, example_inputs=None)
        assert report.changed

    gsprune.prune_step(model, next(sparsities), optimizer=optimizer, example_inputs=example)  # traces and checks
    return model, step


def _steps_of_torch(name: str) -> Steps:
    """Scores along both axes, `topk`, `index_select`; coupling between layers is left out, which makes it cheaper."""
    model, _, optimizer = trained(name)
    outputs = {p.shape[0] for p in list(model.parameters())[-4:]}

    def keep(scores: Tensor) -> Tensor:
        width = len(scores)
        count = width if width in outputs or width < 4 else int(KEPT * width)
        return scores.topk(count).indices.sort().values

    def cut(tensor: Tensor, keeps: list[Tensor]) -> Tensor:
        for axis, kept in enumerate(keeps):
            tensor = tensor.index_select(axis, kept)
        return tensor

    @torch.no_grad()
    def step() -> None:
        for parameter in model.parameters():
            magnitudes = parameter.abs()
            axes = range(min(2, parameter.ndim))
            keeps = [
                keep(magnitudes.movedim(axis, 0).flatten(1).sum(1) if magnitudes.ndim > 1 else magnitudes)
                for axis in axes
            ]
            state = optimizer.state[parameter]
            state["exp_avg"] = cut(state["exp_avg"], keeps)
            state["exp_avg_sq"] = cut(state["exp_avg_sq"], keeps)
            gradient = cut(parameter.grad, keeps)
            parameter.set_(cut(parameter, keeps))
            parameter.grad = gradient

    return model, step


def _torch_pruning() -> ModuleType:
    return pytest.importorskip(
        "torch_pruning", reason="Torch-Pruning is not installed: pip install torch-pruning==1.6.1"
    )


def _steps_of_torch_pruning(name: str) -> Steps:
    pruning = _torch_pruning()
    model, example, _ = trained(name)
    steps = STEPS + WARM_UP + 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = pruning.pruner.BasePruner(
            model,
            example,
            importance=pruning.importance.GroupMagnitudeImportance(p=1),
            pruning_ratio=1 - KEPT**steps,
            iterative_steps=steps,
            ignored_layers=[m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features in (1, 15, 1000)],
        )

    def step() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner.step()

    step()
    return model, step


def _steps_of_gsprune_on_gpu(name: str) -> Steps:
    model, example, optimizer = trained(name)
    model.cuda()
    optimizer.load_state_dict(optimizer.state_dict())  # moves the moments to where the parameters are
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    sparsities = (1 - KEPT**step for step in itertools.count(1))
    gsprune.prune_step(model, next(sparsities), optimizer=optimizer, example_inputs=example.cuda())

    def step() -> None:
        assert gsprune.prune_step(model, next(sparsities), optimizer=optimizer).changed
        torch.cuda.synchronize()

    return model, step


PROVIDERS = {
    "cpp": _steps_of_gsprune,
    "triton": _steps_of_gsprune_on_gpu,
    "torch": _steps_of_torch,
    "Torch-Pruning": _steps_of_torch_pruning,
}


class FreshNetworks:
    """One network after another, each for so many steps."""

    def __init__(self, make: Callable[[], Steps]) -> None:
        self._make = make
        self._current: Steps | None = None
        self._steps_left = 0
        self._parameters_before = 0

    def prepare(self) -> None:
        """Makes the next network where the present one has done its steps. Not timed."""
        if self._steps_left == 0:
            self.finish()
            self._current = self._make()
            self._parameters_before = self._num_parameters()
            time.sleep(SETTLING_S)
            for _ in range(WARM_UP):
                self._current[1]()
            self._steps_left = STEPS
        self._steps_left -= 1

    def step(self) -> None:
        assert self._current is not None
        self._current[1]()

    def finish(self) -> None:
        """Asserts that the present network has become smaller as it should, and lets it go."""
        if self._current is None:
            return
        assert 0.2 * self._parameters_before < self._num_parameters() < 0.85 * self._parameters_before
        self._current = None
        gc.collect()

    def _num_parameters(self) -> int:
        assert self._current is not None
        return sum(parameter.numel() for parameter in self._current[0].parameters())


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_step(benchmark, network: str, provider: str) -> None:
    benchmark.group = f"step {network}"
    if provider == "triton":  # a skip within the timed part leaves a benchmark without data, which no file can hold
        gpu_backend()
    if provider == "Torch-Pruning":
        _torch_pruning()
    networks = FreshNetworks(lambda: PROVIDERS[provider](network))
    benchmark.extra_info.update(extra_info(network), provider=provider)
    benchmark.pedantic(networks.step, setup=networks.prepare, rounds=FRESH_NETWORKS * STEPS)
    networks.finish()


@pytest.mark.parametrize("network", NETWORKS)
def test_floor_of_steps(benchmark, network: str) -> None:
    benchmark.group = f"step {network}"
    num_bytes = sum(parameter.nbytes for parameter in NETWORKS[network]()[0].parameters())
    # The middle of the timed steps: what KEPT per axis leaves of the matrices after that many cuts.
    shrunk = KEPT ** (2 * (1 + WARM_UP + STEPS // 2))
    read = int(shrunk * num_bytes)
    copied = int(shrunk * KEPT**2 * 4 * num_bytes)
    benchmark.extra_info.update(extra_info(network), provider="floor", bytes=copied)
    benchmark.pedantic(Floor(read, copied).best(), rounds=FRESH_NETWORKS * STEPS, warmup_rounds=2)
