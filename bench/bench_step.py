"""The whole pruning step at every optimizer step: a small cut, a cached plan, gradients and both moments of Adam.

Beside it stand the floor ("read every weight once, copy what is kept of weights, gradients and moments"), the same in
plain torch, and Torch-Pruning's step, which moves the parameters alone.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable

import pytest
import torch
from cases import KEPT, NETWORKS, extra_info, four_tensors, gpu_backend, trained
from floors import Floor
from torch import Tensor, nn

import gsprune

ROUNDS = 8


def _steps_of_gsprune(name: str) -> tuple[nn.Module, Callable[[], None]]:
    model, example, optimizer = trained(name)
    sparsities = (1 - KEPT**step for step in itertools.count(1))

    def step() -> None:
        report = gsprune.prune_step(model, next(sparsities), optimizer=optimizer, example_inputs=None)
        assert report.changed

    gsprune.prune_step(model, next(sparsities), optimizer=optimizer, example_inputs=example)  # traces and checks
    return model, step


def _steps_of_torch(name: str) -> tuple[nn.Module, Callable[[], None]]:
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


def _steps_of_torch_pruning(name: str) -> tuple[nn.Module, Callable[[], None]]:
    pruning = pytest.importorskip(
        "torch_pruning", reason="Torch-Pruning is not installed: pip install torch-pruning==1.6.1"
    )
    model, example, _ = trained(name)
    steps = ROUNDS + 6
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


def _steps_of_gsprune_on_gpu(name: str) -> tuple[nn.Module, Callable[[], None]]:
    gpu_backend()
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


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_step(benchmark, network: str, provider: str) -> None:
    benchmark.group = f"step {network}"
    model, step = PROVIDERS[provider](network)
    before = sum(parameter.numel() for parameter in model.parameters())
    benchmark.extra_info.update(extra_info(network), provider=provider, bytes=4 * before)
    benchmark.pedantic(step, rounds=ROUNDS, warmup_rounds=2)  # warmed up once the memory of the dense net is back
    after = sum(parameter.numel() for parameter in model.parameters())
    assert 0.2 * before < after < 0.85 * before


@pytest.mark.parametrize("network", NETWORKS)
def test_floor_of_steps(benchmark, network: str) -> None:
    benchmark.group = f"step {network}"
    weights, tensors, _, _ = four_tensors(network)
    # The middle of the timed steps: what KEPT per axis leaves of the matrices after that many cuts.
    shrunk = KEPT ** (2 * (3 + ROUNDS // 2))
    read = int(shrunk * sum(weight.nbytes for weight in weights))
    copied = int(shrunk * KEPT**2 * sum(tensor.nbytes for tensor in tensors))
    benchmark.extra_info.update(extra_info(network), provider="floor", bytes=copied)
    benchmark.pedantic(Floor(read, copied).best(), rounds=ROUNDS, warmup_rounds=2)
