"""What the launches of both kernel files share: finding a program's job, and the record that tests read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import triton
import triton.language as tl

__all__ = ["INTERPRETED", "Launch", "find_job", "on_device"]

# Read when `triton.jit` reads it too, at import: kernels are compiled, or interpreted on the CPU, never both.
INTERPRETED: Final = bool(triton.knobs.runtime.interpret)


@dataclass(frozen=True)
class Launch:
    """One launch, as it went to the device: how tests know which path was taken.

    Attributes:
        kernel: Name of the kernel.
        jobs: Tensors (or, when folding, vectors) that this one launch worked on.
        programs: Size of the grid.
        table: What its programs were told: (jobs,) tiles up to and with each job, then a row of fields per job.
    """

    kernel: str
    jobs: int
    programs: int
    table: npt.NDArray[np.int64]


@triton.jit
def find_job(ends_ptr: tl.tensor, tile: tl.tensor, num_jobs: tl.tensor) -> tl.tensor:
    """The job that a tile belongs to: the first whose end lies beyond it.

    Args:
        ends_ptr: (num_jobs,) int64, the tiles of the jobs up to and with each one; a job without tiles is never found.
        tile: Scalar int64, below the last end.
        num_jobs: Scalar int32.
    """
    low = num_jobs * 0
    high = num_jobs - 1
    while low < high:
        middle = (low + high) // 2
        past = tl.load(ends_ptr + middle) <= tile
        low = tl.where(past, middle + 1, low)
        high = tl.where(past, high, middle)
    return low


def on_device(table: npt.NDArray[np.int64], device: torch.device) -> torch.Tensor:
    """The table on the device, by one copy that the host doesn't wait for.

    Pinned blocks come from PyTorch's host cache, which reuses none before the copy that reads it is done.
    """
    host = torch.from_numpy(table)
    if device.type != "cuda":
        return host
    return host.pin_memory().to(device, non_blocking=True)
