"""Everything that only a GPU can say about the Triton kernels, in one run of under 8 minutes.

    pip install -e .                                   # once: builds the compiled core
    python scripts/gpu_check.py --output results/      # on the machine with the GPU
    python scripts/gpu_check.py --dry-run              # anywhere: the same code paths, tiny, in Triton's interpreter

It checks the kernels against the plain-torch definition and against the C++ core's selection, and whole steps against
the CPU's, bit for bit and with several optimizers; runs their tests on the GPU and a small workload under
compute-sanitizer where that is installed, and then times scoring, slicing and whole steps beside the copy floor and,
where it is installed, Torch-Pruning. It prints a markdown table, writes gpu_check.json and gpu_check.md, and exits with
1 if anything was wrong.

GPU times are what all kernels and copies of a call take in a profile; wall times begin and end with an idle device, and
are medians and minima, since hosts are shared more often than GPUs.
"""

from __future__ import annotations

import argparse
import copy
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
from gsprune.backends import Pattern, Statistic, SumJob, TorchBackend, bind_torch, get_backend

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


def environment(device: torch.device) -> dict[str, Any]:
    """Commit, versions and the device: what a figure is worth nothing without."""
    import triton

    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    dirty = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False)
    found = {
        "commit": (commit.stdout.strip() or "unknown") + (" (changed)" if dirty.stdout.strip() else ""),
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


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "fused adam": lambda parameters: torch.optim.Adam(parameters, fused=True),
    "capturable amsgrad": lambda parameters: torch.optim.AdamW(parameters, amsgrad=True, capturable=True),
    "momentum": lambda parameters: torch.optim.SGD(parameters, momentum=0.9),
}


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
        ours = OPTIMIZERS["adam" if name == "fused adam" else name](model.parameters())
        ours.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for parameter, other in zip(model.parameters(), theirs.parameters(), strict=True):
            parameter.grad = other.grad.clone().cpu()
        for sparsity in STEP_SPARSITIES[:6]:
            gsprune.prune_step(model, sparsity, optimizer=ours, example_inputs=example)
            gsprune.prune_step(
                theirs, sparsity, optimizer=optimizer, example_inputs=example.to(device), backend="triton"
            )
        pairs = list(zip(everything(model, ours), everything(theirs, optimizer), strict=True))
        for index, (wanted, found) in enumerate(pairs):
            assert torch.equal(wanted.cpu(), found.cpu()), f"tensor {index} of a network with {name}"
        compared[name] = len(pairs)
    return compared


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Weights, buffers, gradients and states."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return [*model.state_dict().values(), *gradients, *states]


def run_tests() -> dict[str, Any]:
    """The kernels' own tests, which run on the GPU where there is one; not those that need none."""
    if not importlib.util.find_spec("pytest"):
        return {"ok": True, "skipped": "pytest is not installed"}
    without_gpu = [f"--ignore=tests/kernels/test_{name}.py" for name in ("interpreter", "gpu_check", "ahead_of_time")]
    return _run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/kernels", *without_gpu], 180, {}
    )


def run_sanitizer() -> dict[str, dict[str, Any]]:
    """compute-sanitizer's tools on `check_correctness`, every tensor's memory being its own allocation."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return {"all": {"ok": True, "skipped": "compute-sanitizer is not installed"}}
    script = [sys.executable, str(Path(__file__).resolve()), "--only-correctness", "--apart"]
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


def walls(call: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Wall times of a call, microseconds, after a quarter as many calls that don't count."""
    found = []
    for _ in range(repeats + repeats // 4 + 1):
        synchronize(device)
        begin = time.perf_counter()
        call()
        synchronize(device)
        found.append((time.perf_counter() - begin) * 1e6)
    return found[repeats // 4 + 1 :]


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


def time_steps(name: str, make: Make, device: torch.device, speed: float, networks: int = 3) -> Timing:
    """`gsprune.prune_step` for one small cut after the other, each of other widths than the last.

    The walls are those of some networks; one more is profiled.
    """
    walls, gpu, launches, floors = [], [], [], []
    for round_ in range(networks + 1):
        model, example, optimizer = with_moments(make, device)
        gsprune.prune_step(model, STEP_SPARSITIES[0], optimizer=optimizer, example_inputs=example, backend="triton")
        for index, sparsity in enumerate(STEP_SPARSITIES[1:], start=1):
            before = sum(p.numel() for p in model.parameters()) * 4

            def step(model: nn.Module = model, to: float = sparsity, of: torch.optim.Optimizer = optimizer) -> None:
                gsprune.prune_step(model, to, optimizer=of, backend="triton")

            if round_ == networks:
                time_, count = on_gpu([step], device)
                gpu += [time_] if time_ else []
                launches += [count] if count else []
            else:
                synchronize(device)
                begin = time.perf_counter()
                step()
                synchronize(device)
                if index >= NUM_WARM_UP:
                    walls.append((time.perf_counter() - begin) * 1e6)
            after = sum(p.numel() for p in model.parameters()) * 4
            floors.append((before + 2 * COPIES * after) / speed * 1e6)
    return Timing(
        name,
        "prune_step",
        statistics.median(gpu) if gpu else None,
        statistics.median(walls),
        min(walls),
        statistics.median(floors),
        statistics.median(launches) if launches else None,
    )


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
    return Timing(name, "Torch-Pruning step", None, statistics.median(walls[NUM_WARM_UP:]), min(walls[NUM_WARM_UP:]))


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    lines = [f"- {key}: {value}" for key, value in report["environment"].items()]
    lines += [
        f"- copy bandwidth: {report['copy_bandwidth'] / 1e12:.2f} TB/s",
        f"- correctness: {report['correctness']}",
        f"- tensors that end with the CPU's bits, by optimizer: {report['steps']}",
    ]
    for title, result in {"tests": report["tests"], **report["sanitizer"]}.items():
        lines.append(
            f"- {title}: {result.get('skipped') or ('passed' if result['ok'] else 'FAILED: ' + result['tail'])}"
        )
    head = "| network | operation | GPU us | wall us | least us | floor us | GPU / floor | launches |"
    lines += ["", head, "|" + " --- |" * 8]
    for row in report["timings"]:
        gpu, floor = row["gpu_us"], row["floor_us"]
        ratio = f"{gpu / floor:.2f}" if gpu and floor else ""
        numbers = ["" if x is None else f"{x:.1f}" for x in (gpu, row["wall_us"], row["least_us"], floor)]
        launches = "" if row["launches"] is None else f"{row['launches']:.0f}"
        lines.append("| " + " | ".join([row["network"], row["operation"], *numbers, ratio, launches]) + " |")
    return "\n".join([*lines, "", f"{report['seconds']:.0f} s in all"])


def main(arguments: list[str]) -> int:
    """Runs everything; 0 if all was right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder for gpu_check.json and gpu_check.md")
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the CPU, in Triton's interpreter")
    parser.add_argument(
        "--only-correctness", action="store_true", help="nothing but the comparison with the definition"
    )
    parser.add_argument("--apart", action="store_true", help="every new tensor is an allocation of its own")
    options = parser.parse_args(arguments)
    if options.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"  # in time: triton is imported with the first kernel
    elif not torch.cuda.is_available():
        parser.error("there is no CUDA device; --dry-run runs the same code paths without one")
    begin = time.perf_counter()
    device = torch.device("cpu" if options.dry_run else "cuda")
    if options.apart:
        bind_torch(exchange_api=None)
    correctness = check_correctness(device, options.dry_run)
    if options.only_correctness:
        return 0
    makes = networks(options.dry_run)
    # Of all but the smallest, programs go down several tiles.
    steps = {name: check_steps(make, device, options.dry_run) for name, make in list(makes.items())[:3]}
    alone = {"ok": True, "skipped": "not in a dry run"}
    tests = alone if options.dry_run else run_tests()
    sanitizer = {"compute-sanitizer": alone} if options.dry_run else run_sanitizer()
    speed = copy_bandwidth(device, options.dry_run)
    timings = []
    for name, make in makes.items():
        timings += time_kernels(name, [tuple(p.shape) for p in make()[0].parameters()], device, speed)
        timings.append(time_steps(name, make, device, speed))
        if importlib.util.find_spec("torch_pruning"):
            timings.append(time_torch_pruning(name, make, device))
    report = {
        "environment": environment(device),
        "correctness": correctness,
        "steps": steps,
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
