"""How long the host takes for a `prune_step` of the Triton path, with the kernels left out; runs without a GPU.

    python scripts/gpu_host_part.py

Tensors lie on the CPU and nothing is launched: what is left is what the host does before, between and after the
launches of one step, from the choice of channels to the exchange of tensors. On a GPU launches, copies and CUDA's
allocator come on top, which scripts/gpu_check.py measures. Wall times of steps after the one whose result is checked,
each of other widths than the last, on one thread; weights, gradients and two Adam moments.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from typing import Any

import torch
from gpu_networks import Make, networks, with_moments

import gsprune
from gsprune.kernels.launch import Kernel

# Read when triton is imported and when the process begins. Memory is not to go back to the system, since CUDA's
# allocator keeps it, too.
ENVIRONMENT = {
    "TRITON_INTERPRET": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**36),
    "MALLOC_TOP_PAD_": str(2**29),
}
SPARSITIES = [round(0.1 + 0.02 * index, 2) for index in range(1, 15)]


def _left_out(kernel: Kernel, programs: int, *arguments: Any) -> None:
    """Stands in for a launch: nothing is done, but that sums are zero."""
    if isinstance(arguments[2], torch.Tensor):  # of `fold_kernel` alone
        arguments[2].zero_()


def host_times(make: Make) -> list[float]:
    """Microseconds of every step of one network."""
    model, example, optimizer = with_moments(make, torch.device("cpu"))
    gsprune.prune_step(model, 0.1, optimizer=optimizer, example_inputs=example, backend="cpp")  # checks every group
    times = []
    for sparsity in SPARSITIES:
        begin = time.perf_counter()
        gsprune.prune_step(model, sparsity, optimizer=optimizer, backend="triton")
        times.append((time.perf_counter() - begin) * 1e6)
    return times[2:]


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="networks of each kind")
    repeats = parser.parse_args().repeats
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})
    torch.set_num_threads(1)
    Kernel.launch = _left_out  # type: ignore[method-assign]
    print("| network | parameter tensors | median us | least us |\n| --- | --- | --- | --- |")
    for name, make in networks(dry_run=False).items():
        times = [t for _ in range(repeats) for t in host_times(make)]
        count = len(list(make()[0].parameters()))
        print(f"| {name} | {count} | {statistics.median(times):.0f} | {min(times):.0f} |", flush=True)


if __name__ == "__main__":
    main()
