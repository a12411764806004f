"""Whether a GPU computes what the definition and the CPU do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gpu_cases import KEEP, STEP_SPARSITIES, drawn, jobs_of, patterns_of
from gpu_networks import Make
from torch import Tensor, nn

import gsprune
from gsprune.backends import TorchBackend, get_backend

__all__ = ["check_correctness", "check_steps"]

STATISTICS = ("abs", "square", "product", "abs_product", "square_product")
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "fused adam": lambda parameters: torch.optim.Adam(parameters, fused=True),
    "capturable amsgrad": lambda parameters: torch.optim.AdamW(parameters, amsgrad=True, capturable=True),
    "momentum": lambda parameters: torch.optim.SGD(parameters, momentum=0.9),
}


def check_correctness(device: torch.device, dry_run: bool) -> dict[str, int]:
    """Compares every statistic, selection and slice with the definition, on the CPU, for all dtypes and layouts.

    Raises:
        AssertionError: A result differs; the message says where.
    """
    ours, definition, core = get_backend("triton", device), TorchBackend(), get_backend("cpp", torch.device("cpu"))
    shapes = [(7, 1, 3, 3), (9, 5), (100,)] if dry_run else [(64, 33, 3, 3), (65, 130), (7, 1, 3, 3), (300, 5), (100,)]
    counts = {"sums": 0, "selections": 0, "slices": 0}
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            weights, others = (drawn(shapes, dtype, device, seed) for seed in (0, 1))
            weights = [w.to(memory_format=memory_format) if w.ndim == 4 else w for w in weights]
            for statistic in STATISTICS:
                jobs = jobs_of(weights, others)
                host = [tensor.cpu() for tensor in jobs[0]], jobs[1], [tensor.cpu() for tensor in jobs[2]]
                found, wanted = ours.axis_sums(*jobs, statistic), definition.axis_sums(*host, statistic)
                place = f"{statistic} of {dtype}, {memory_format}"
                assert np.allclose(found, wanted, rtol=1e-11, atol=1e-11), place
                counts["sums"] += len(found)
                bounds = np.cumsum([0, *(tensor.shape[axis] for tensor in jobs[0] for axis in (0, 1))])
                scores, expected = found.astype(np.float32), wanted.astype(np.float32)
                widths = np.diff(bounds)
                for keep in (np.minimum(1, widths), widths // 2, (widths * KEEP).astype(np.int64)):
                    chosen = ours.select_groups(scores, bounds, keep)
                    assert np.array_equal(chosen, core.select_groups(expected, bounds, keep)), place
                    counts["selections"] += len(widths)
            patterns, which = patterns_of(shapes), list(range(len(shapes)))
            sliced = ours.slice(weights, patterns, which)
            for found, wanted in zip(sliced, definition.slice(weights, patterns, which), strict=True):
                assert torch.equal(found, wanted), f"slice of {tuple(wanted.shape)} {dtype}, {memory_format}"
                assert found.stride() == wanted.stride(), f"strides of {tuple(wanted.shape)} {memory_format}"
                counts["slices"] += 1
    return counts


def check_steps(make: Make, device: torch.device, dry_run: bool) -> dict[str, int]:
    """Whole steps there and on the CPU, of the same weights, gradients and optimizer states: the same bits.

    Raises:
        AssertionError: Something differs; the message says what.
    """
    compared = {}
    for name, make_optimizer in OPTIMIZERS.items():
        if dry_run and name.startswith("capturable"):
            continue  # torch serves it on GPUs only
        torch.manual_seed(0)
        model, example = make()
        theirs = copy.deepcopy(model).to(device)
        optimizer = make_optimizer(theirs.parameters())
        for parameter in theirs.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        model.load_state_dict(theirs.state_dict())
        ours = make_optimizer(model.parameters())
        ours.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for parameter, other in zip(model.parameters(), theirs.parameters(), strict=True):
            parameter.grad = other.grad.clone().cpu()
        for sparsity in STEP_SPARSITIES[:6]:
            gsprune.prune_step(model, sparsity, optimizer=ours, example_inputs=example)
            gsprune.prune_step(
                theirs, sparsity, optimizer=optimizer, example_inputs=example.to(device), backend="triton"
            )
        pairs = list(zip(_everything(model, ours), _everything(theirs, optimizer), strict=True))
        for index, (wanted, found) in enumerate(pairs):
            assert torch.equal(wanted.cpu(), found.cpu()), f"tensor {index} of a network with {name}"
        compared[name] = len(pairs)
    return compared


def _everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Weights, buffers, gradients and states."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return [*model.state_dict().values(), *gradients, *states]
