"""What scoring, slicing and whole steps take on a GPU, beside plain torch and Torch-Pruning."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from gpu_cases import STEP_SPARSITIES, drawn, jobs_of, patterns_of
from gpu_networks import Make, with_moments
from torch import Tensor, nn

import gsprune
from gsprune.backends import Pattern, get_backend

__all__ = ["Timing", "copy_bandwidth", "time_kernels", "time_steps", "time_torch_pruning"]

# The first step cuts every group, which is then checked by a forward; it and the next two warm up.
NUM_WARM_UP = 3
NUM_NETWORKS = 3  # whose steps are timed; one more is profiled
COPIES = 4  # weights, gradients and two moments


@dataclass(frozen=True)
class Timing:
    """Medians of one operation on one network, microseconds; None where it could not be had.

    Attributes:
        network: Which weights.
        operation: What was timed.
        gpu_us: Kernels and copies in a profile, their times added.
        wall_us: The host's clock.
        least_us: The same, its least.
        floor_us: The bytes that must move over the measured copy bandwidth.
        launches: Kernels and copies.
    """

    network: str
    operation: str
    gpu_us: float | None
    wall_us: float
    least_us: float
    floor_us: float | None = None
    launches: float | None = None


def synchronize(device: torch.device) -> None:
    """Waits until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def wall(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of a call, microseconds, from an idle device to an idle device."""
    synchronize(device)
    begin = time.perf_counter()
    call()
    synchronize(device)
    return (time.perf_counter() - begin) * 1e6


def walls(call: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Wall times of several calls, after a quarter as many that don't count."""
    warm_up = repeats // 4 + 1
    return [wall(call, device) for _ in range(warm_up + repeats)][warm_up:]


def on_gpu(calls: Sequence[Callable[[], object]], device: torch.device) -> tuple[float | None, float | None]:
    """What all kernels and copies of the calls take, microseconds, and their number; medians over the calls."""
    if device.type != "cuda":
        return None, None
    times, counts = [], []
    for call in calls:
        synchronize(device)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profile:
            call()
            synchronize(device)
        events = [event for event in profile.events() if event.device_type.name == "CUDA"]
        times.append(float(sum(event.time_range.elapsed_us() for event in events)))
        counts.append(len(events))
    return statistics.median(times), statistics.median(counts)


def copy_bandwidth(device: torch.device, dry_run: bool) -> float:
    """Bytes per second, read and written together, of the device's own copy of a block beyond any cache."""
    source = torch.ones(2**16 if dry_run else 2**28, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    gpu, _ = on_gpu([lambda: target.copy_(source)] * 5, device)
    return 2 * source.numel() * 4 / ((gpu or min(walls(lambda: target.copy_(source), device, 5))) * 1e-6)


def time_kernels(name: str, shapes: Sequence[tuple[int, ...]], device: torch.device, speed: float) -> list[Timing]:
    """Scoring and slicing through the Triton provider, and the same in torch calls."""
    backend = get_backend("triton", device)
    weights, *rest = (drawn(shapes, torch.float32, device, seed) for seed in range(COPIES))
    jobs, patterns = jobs_of(weights, rest[0]), patterns_of(shapes)
    tensors = [tensor for copy in (weights, *rest) for tensor in copy]
    which = list(range(len(shapes))) * COPIES
    read = sum(tensor.numel() for tensor in jobs[0]) * 4
    kept = sum(result.numel() for result in backend.slice(tensors, patterns, which)) * 4
    repeats = 1 if device.type == "cpu" else 20
    cases: list[tuple[str, Callable[[], object], int]] = [
        ("score l1", lambda: backend.axis_sums(*jobs, "abs"), read),
        ("score taylor", lambda: backend.axis_sums(*jobs, "abs_product"), 2 * read),
        ("slice", lambda: backend.slice(tensors, patterns, which), 2 * kept),
        ("score l1, torch", lambda: torch_scores(weights), read),
        ("slice, torch", lambda: torch_slices(tensors, patterns, which), 2 * kept),
    ]
    found = []
    for operation, call, moved in cases:
        wall = walls(call, device, repeats)
        gpu, launches = on_gpu([call] * 5, device)
        found.append(Timing(name, operation, gpu, statistics.median(wall), min(wall), moved / speed * 1e6, launches))
    return found


def torch_scores(weights: Sequence[Tensor]) -> list[Tensor]:
    """L1 sums along both axes as one writes them in torch, float32, and one read by the host."""
    matrices = [weight.flatten(2).abs() if weight.ndim > 2 else weight.abs() for weight in weights if weight.ndim > 1]
    sums = [matrix.sum([d for d in range(matrix.ndim) if d != axis]) for matrix in matrices for axis in (0, 1)]
    return list(torch.cat(sums).cpu().split([len(vector) for vector in sums]))


def torch_slices(tensors: Sequence[Tensor], patterns: Sequence[Pattern], which: Sequence[int]) -> list[Tensor]:
    """index_select along one axis after the other."""
    device = tensors[0].device
    indices = [[(axis, torch.from_numpy(kept).to(device)) for axis, kept in pattern] for pattern in patterns]
    results = []
    for tensor, index in zip(tensors, which, strict=True):
        kept = tensor
        for axis, positions in indices[index]:
            kept = kept.index_select(axis, positions)
        results.append(kept)
    return results


def time_steps(name: str, make: Make, device: torch.device, speed: float) -> Timing:
    """`gsprune.prune_step` for one small cut after the other, each of other widths than the last."""
    count = 1 if device.type == "cpu" else NUM_NETWORKS
    timed = [_steps(make, device, lambda step: wall(step, device)) for _ in range(count)]
    profiled = _steps(make, device, lambda step: on_gpu([step], device))
    times = [time_ for steps in timed for time_, _ in steps[NUM_WARM_UP - 1 :]]
    floors = [moved / speed * 1e6 for steps in (*timed, profiled) for _, moved in steps]
    busy = [step for step, _ in profiled if step[0]]  # none without a GPU
    gpu, launches = (statistics.median(column) for column in zip(*busy, strict=True)) if busy else (None, None)
    return Timing(name, "prune_step", gpu, statistics.median(times), min(times), statistics.median(floors), launches)


def _steps(make: Make, device: torch.device, measure: Callable[[Callable[[], object]], Any]) -> list[tuple[Any, int]]:
    """What `measure` makes of every step of a network but the first, and how many bytes that step must move."""
    model, example, optimizer = with_moments(make, device)
    gsprune.prune_step(model, STEP_SPARSITIES[0], optimizer=optimizer, example_inputs=example, backend="triton")
    found = []
    for sparsity in STEP_SPARSITIES[1:]:
        before = _parameter_bytes(model)
        measured = measure(partial(gsprune.prune_step, model, sparsity, optimizer=optimizer, backend="triton"))
        found.append((measured, before + 2 * COPIES * _parameter_bytes(model)))
    return found


def _parameter_bytes(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters()) * 4


def time_torch_pruning(name: str, make: Make, device: torch.device) -> Timing:
    """Torch-Pruning's `step()` for the same small cuts; it moves parameters only, no gradients, no moments."""
    import torch_pruning

    model, example, _ = with_moments(make, device)
    heads = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.out_features in (1, 5, 15, 1000)
    ]
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=STEP_SPARSITIES[-1],
        iterative_steps=len(STEP_SPARSITIES),
        ignored_layers=heads,
    )
    times = [wall(pruner.step, device) for _ in STEP_SPARSITIES][NUM_WARM_UP:]
    return Timing(name, "Torch-Pruning step", None, statistics.median(times), min(times))
