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
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from gpu_correctness import check_correctness, check_steps
from gpu_networks import networks
from gpu_timings import copy_bandwidth, time_kernels, time_steps, time_torch_pruning

import gsprune
from gsprune.backends import bind_torch

ROOT = Path(__file__).parents[1]
SANITIZER_TOOLS = ("memcheck", "racecheck", "initcheck")


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
