"""Everything that only a GPU can say about the Triton kernels, in one run of under 8 minutes.

    pip install -e .                                   # once: builds the compiled core
    python scripts/gpu_check.py --output results/      # on the machine with the GPU
    python scripts/gpu_check.py --dry-run              # anywhere: the same code paths, tiny, in Triton's interpreter

It checks the kernels against the plain-torch definition and against the C++ core's selection, runs their tests on the
GPU and a small workload under compute-sanitizer where that is installed, and then times scoring, slicing and whole
steps beside the copy floor and, where it is installed, Torch-Pruning. It prints a markdown table, writes
gpu_check.json and gpu_check.md, and exits with 1 if anything was wrong.

GPU times are CUDA events around the call (so they hold the host's gaps between launches too) and, for whole steps, the
sum of all kernels in a profile; wall times begin and end with an idle device. All are medians.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_networks import Make, networks, with_moments
from torch import Tensor, nn

import gsprune
from gsprune.backends import Pattern, Statistic, SumJob, TorchBackend, get_backend

ROOT = Path(__file__).parents[1]
KEEP = 0.95  # of every axis: a small cut, as gradual pruning makes it
# The first step cuts every group, which is then checked by a forward; it and the next two warm up.
STEP_SPARSITIES = tuple(round(0.1 + 0.02 * index, 2) for index in range(15))
NUM_WARM_UP = 3
COPIES = 4  # weights, gradients and two moments
SANITIZER_TOOLS = ("memcheck", "racecheck", "initcheck")


@dataclass(frozen=True)
class Timing:
    """Medians of one operation on one network, microseconds; None where it could not be had.

    Attributes:
        network: Which weights.
        operation: What was timed.
        gpu_us: CUDA events, or the sum of kernels for a whole step.
        wall_us: The host's clock.
        floor_us: The bytes that must move over the measured copy bandwidth.
        kernels: Launches on the device in one whole step.
    """

    network: str
    operation: str
    gpu_us: float | None
    wall_us: float
    floor_us: float | None = None
    kernels: int | None = None


def environment(device: torch.device) -> dict[str, Any]:
    """Commit, versions and the device: what a figure is worth nothing without."""
    import triton

    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    dirty = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False)
    found = {
        "commit": commit.stdout.strip() + (" (changed)" if dirty.stdout.strip() else ""),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "gsprune": gsprune.__version__,
        "device": platform.processor() or platform.machine(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"device": properties.name, "multiprocessors": properties.multi_processor_count}
        found["cuda"] = torch.version.cuda
    return found


def drawn(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype, device: torch.device, seed: int) -> list[Tensor]:
    """Normal random tensors, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype).to(device) for shape in shapes]


def jobs_of(weights: Sequence[Tensor], others: Sequence[Tensor]) -> list[SumJob]:
    """Sums along both axes of every weight."""
    pairs = zip(weights, others, strict=True)
    return [SumJob(weight, (0, 1), other) for weight, other in pairs if weight.ndim > 1]


def patterns_of(shapes: Sequence[tuple[int, ...]]) -> list[Pattern]:
    """A cut of every tensor along its first two axes."""
    random = np.random.default_rng(0)
    patterns = []
    for shape in shapes:
        counts = [(axis, shape[axis], max(1, int(shape[axis] * KEEP))) for axis in range(min(2, len(shape)))]
        patterns.append(tuple((axis, np.sort(random.permutation(n)[:keep])) for axis, n, keep in counts))
    return patterns


def check_correctness(device: torch.device, dry_run: bool) -> dict[str, int]:
    """Compares every statistic, selection and slice with the definition, on the CPU, for all dtypes and layouts.

    Raises:
        AssertionError: A result differs; the message says where.
    """
    ours, definition, core = get_backend("triton", device), TorchBackend(), get_backend("cpp", torch.device("cpu"))
    shapes = [(64, 33, 3, 3), (65, 130), (7, 1, 3, 3), (300, 5), (100,)]
    shapes = shapes[3:] if dry_run else shapes
    counts = {"sums": 0, "selections": 0, "slices": 0}
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            weights, others = (drawn(shapes, dtype, device, seed) for seed in (0, 1))
            weights = [w.to(memory_format=memory_format) if w.ndim == 4 else w for w in weights]
            for statistic in Statistic:
                jobs = jobs_of(weights, others)
                host = [SumJob(job.tensor.cpu(), job.axes, job.other.cpu()) for job in jobs if job.other is not None]
                results = zip(ours.axis_sums(jobs, statistic), definition.axis_sums(host, statistic), strict=True)
                for found, wanted in ((a, b) for pair in results for a, b in zip(*pair, strict=True)):
                    place = f"{statistic} of {dtype}, {memory_format}"
                    assert np.allclose(found, wanted, rtol=1e-11, atol=1e-11), place
                    counts["sums"] += len(found)
                    scores, expected = found.astype(np.float32), wanted.astype(np.float32)
                    for keep in {1, len(scores) // 2, int(len(scores) * KEEP)}:
                        assert np.array_equal(ours.select(scores, keep), core.select(expected, keep)), place
                        counts["selections"] += 1
            patterns, which = patterns_of(shapes), list(range(len(shapes)))
            sliced = ours.slice(weights, patterns, which)
            for found, wanted in zip(sliced, definition.slice(weights, patterns, which), strict=True):
                assert torch.equal(found, wanted), f"slice of {tuple(wanted.shape)} {dtype}, {memory_format}"
                assert found.stride() == wanted.stride(), f"strides of {tuple(wanted.shape)} {memory_format}"
                counts["slices"] += 1
    return counts


def run_tests() -> dict[str, Any]:
    """The kernels' own tests, which run on the GPU where there is one."""
    if not importlib.util.find_spec("pytest"):
        return {"ok": True, "skipped": "pytest is not installed"}
    return _run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/kernels"], 240, {})


def run_sanitizer() -> dict[str, dict[str, Any]]:
    """compute-sanitizer's tools on `check_correctness`, every block of memory being its own allocation."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return {"all": {"ok": True, "skipped": "compute-sanitizer is not installed"}}
    script = [sys.executable, str(Path(__file__).resolve()), "--only-correctness"]
    switch = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return {
        tool: _run([program, "--tool", tool, "--error-exitcode", "9", *script], 75, switch) for tool in SANITIZER_TOOLS
    }


def _run(command: list[str], seconds: int, switches: dict[str, str]) -> dict[str, Any]:
    """Runs a command; whether it went well and the end of what it printed."""
    try:
        run = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **switches},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"ok": False, "tail": f"not done after {seconds} s"}
    return {"ok": run.returncode == 0, "tail": "\n".join((run.stdout + run.stderr).strip().splitlines()[-12:])}


def synchronize(device: torch.device) -> None:
    """Waits until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Callable[[], object], device: torch.device, repeats: int) -> tuple[float | None, float]:
    """Median GPU and wall time of a call, microseconds, after a quarter as many calls that don't count."""
    gpu, wall = [], []
    for index in range(repeats + repeats // 4 + 1):
        synchronize(device)
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.type == "cuda" else []
        begin = time.perf_counter()
        for event in events[:1]:
            event.record()
        call()
        for event in events[1:]:
            event.record()
        synchronize(device)
        if index > repeats // 4:
            wall.append((time.perf_counter() - begin) * 1e6)
            gpu += [events[0].elapsed_time(events[1]) * 1e3] if events else []
    return (statistics.median(gpu) if gpu else None), statistics.median(wall)


def copy_bandwidth(device: torch.device, dry_run: bool) -> float:
    """Bytes per second, read and written together, of the device's own copy of a block beyond any cache."""
    source = torch.ones(2**16 if dry_run else 2**28, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    gpu, wall = timed(lambda: target.copy_(source), device, 10)
    return 2 * source.numel() * 4 / ((gpu or wall) * 1e-6)


def time_kernels(name: str, shapes: Sequence[tuple[int, ...]], device: torch.device, speed: float) -> list[Timing]:
    """Scoring and slicing through the Triton provider, and the same in torch calls."""
    backend = get_backend("triton", device)
    weights, *rest = (drawn(shapes, torch.float32, device, seed) for seed in range(COPIES))
    jobs, patterns = jobs_of(weights, rest[0]), patterns_of(shapes)
    tensors = [tensor for copy in (weights, *rest) for tensor in copy]
    which = list(range(len(shapes))) * COPIES
    read = sum(job.tensor.numel() for job in jobs) * 4
    kept = sum(result.numel() for result in backend.slice(tensors, patterns, which)) * 4
    repeats = 3 if device.type == "cpu" else 20
    cases: list[tuple[str, Callable[[], object], int]] = [
        ("score l1", lambda: backend.axis_sums(jobs, Statistic.ABS), read),
        ("score taylor", lambda: backend.axis_sums(jobs, Statistic.ABS_PRODUCT), 2 * read),
        ("slice", lambda: backend.slice(tensors, patterns, which), 2 * kept),
        ("score l1, torch", lambda: torch_scores(weights), read),
        ("slice, torch", lambda: torch_slices(tensors, patterns, which), 2 * kept),
    ]
    found = []
    for operation, call, moved in cases:
        gpu, wall = timed(call, device, repeats)
        found.append(Timing(name, operation, gpu, wall, floor_us=moved / speed * 1e6))
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
    model, example, optimizer = with_moments(make, device)
    walls, floors, profile = [], [], None
    for index, sparsity in enumerate(STEP_SPARSITIES):
        before = sum(p.numel() for p in model.parameters()) * 4
        last = index == len(STEP_SPARSITIES) - 1 and device.type == "cuda"
        recorder = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) if last else None
        synchronize(device)
        begin = time.perf_counter()
        with recorder or contextlib.nullcontext():
            known = example if index == 0 else None
            gsprune.prune_step(model, sparsity, optimizer=optimizer, example_inputs=known, backend="triton")
            synchronize(device)
        if recorder is not None:
            profile = recorder
        elif index >= NUM_WARM_UP:
            walls.append((time.perf_counter() - begin) * 1e6)
        after = sum(p.numel() for p in model.parameters()) * 4
        floors.append((before + 2 * COPIES * after) / speed * 1e6)
    kernels = [event for event in profile.events() if event.device_type.name == "CUDA"] if profile else []
    gpu = float(sum(event.time_range.elapsed_us() for event in kernels)) if kernels else None
    return Timing(name, "prune_step", gpu, statistics.median(walls), statistics.median(floors), len(kernels) or None)


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
    walls = []
    for _ in STEP_SPARSITIES:
        synchronize(device)
        begin = time.perf_counter()
        pruner.step()
        synchronize(device)
        walls.append((time.perf_counter() - begin) * 1e6)
    return Timing(name, "Torch-Pruning step", None, statistics.median(walls[NUM_WARM_UP:]))


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    lines = [f"- {key}: {value}" for key, value in report["environment"].items()]
    lines += [
        f"- copy bandwidth: {report['copy_bandwidth'] / 1e12:.2f} TB/s",
        f"- correctness: {report['correctness']}",
    ]
    for title, result in {"tests": report["tests"], **report["sanitizer"]}.items():
        lines.append(
            f"- {title}: {result.get('skipped') or ('passed' if result['ok'] else 'FAILED: ' + result['tail'])}"
        )
    lines += ["", "| network | operation | GPU us | wall us | floor us | GPU / floor | kernels |", "|" + " --- |" * 7]
    for row in report["timings"]:
        gpu, wall, floor = row["gpu_us"], row["wall_us"], row["floor_us"]
        ratio = f"{gpu / floor:.2f}" if gpu and floor else ""
        cells = [
            row["network"],
            row["operation"],
            *("" if x is None else f"{x:.1f}" for x in (gpu, wall, floor)),
            ratio,
        ]
        lines.append("| " + " | ".join([*cells, str(row["kernels"] or "")]) + " |")
    return "\n".join([*lines, "", f"{report['seconds']:.0f} s in all"])


def main(arguments: list[str]) -> int:
    """Runs everything; 0 if all was right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder for gpu_check.json and gpu_check.md")
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the CPU, in Triton's interpreter")
    parser.add_argument(
        "--only-correctness", action="store_true", help="nothing but the comparison with the definition"
    )
    options = parser.parse_args(arguments)
    if options.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"  # in time: triton is imported with the first kernel
    elif not torch.cuda.is_available():
        parser.error("there is no CUDA device; --dry-run runs the same code paths without one")
    begin = time.perf_counter()
    device = torch.device("cpu" if options.dry_run else "cuda")
    correctness = check_correctness(device, options.dry_run)
    if options.only_correctness:
        return 0
    alone = {"ok": True, "skipped": "not in a dry run"}
    tests = alone if options.dry_run else run_tests()
    sanitizer = {"compute-sanitizer": alone} if options.dry_run else run_sanitizer()
    speed = copy_bandwidth(device, options.dry_run)
    timings = []
    for name, make in networks(options.dry_run).items():
        timings += time_kernels(name, [tuple(p.shape) for p in make()[0].parameters()], device, speed)
        timings.append(time_steps(name, make, device, speed))
        if importlib.util.find_spec("torch_pruning"):
            timings.append(time_torch_pruning(name, make, device))
    report = {
        "environment": environment(device),
        "correctness": correctness,
        "tests": tests,
        "sanitizer": sanitizer,
        "copy_bandwidth": speed,
        "timings": [asdict(timing) for timing in timings],
        "seconds": time.perf_counter() - begin,
    }
    page = markdown(report)
    print(page)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "gpu_check.json").write_text(json.dumps(report, indent=1) + "\n")
        (options.output / "gpu_check.md").write_text(page + "\n")
    return 0 if tests["ok"] and all(result["ok"] for result in sanitizer.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
