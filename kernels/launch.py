"""What the launches of both kernel files share: a program's job, launching, and the record that tests read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import triton
import triton.language as tl

from gsprune.errors import MissingExtraError

__all__ = ["DEFAULT_STREAM", "INTERPRETED", "Kernel", "Launch", "current_stream", "job_of", "on_device", "tile_columns"]

if not hasattr(triton, "knobs"):
    raise MissingExtraError("triton>=3.4", "triton")

# Read when `triton.jit` reads it too, at import: kernels are compiled, or interpreted on the CPU, never both.
INTERPRETED: Final = bool(triton.knobs.runtime.interpret)
DEFAULT_STREAM: Final = 0  # CUDA's, of any device


@dataclass(frozen=True)
class Launch:
    """One launch, as it went to the device: how tests know which path was taken.

    Attributes:
        kernel: Name of the kernel.
        jobs: Tensors (or, when folding, vectors) that this one launch worked on.
        programs: Size of the grid.
        table: What its programs were told, beginning with a row of fields per job.
    """

    kernel: str
    jobs: int
    programs: int
    table: npt.NDArray[np.int64]


class Kernel:
    """A kernel that is launched directly once it is compiled for a device.

    Triton's own way looks at all arguments and options at every launch to find the compiled kernel. For these kernels
    they can lead to one only: integers are not specialized, and tensors come from torch's allocator, which aligns them
    more than Triton asks for.

    Args:
        jitted: What `triton.jit` made.
        constants: Positional arguments known when it is compiled, which come last.
        options: How it is compiled, `num_warps` and so on.
    """

    def __init__(self, jitted: Any, *constants: int, **options: Any) -> None:
        self._jitted, self._constants, self._options = jitted, constants, options
        self._compiled: dict[int, Any] = {}  # by device

    def launch(self, programs: int, *arguments: Any) -> None:
        """On the current device and stream.

        Args:
            programs: Size of the grid.
            arguments: Of the kernel, but for its constants; tensors from torch's allocator, integers below 2^31.
        """
        grid = (programs, 1, 1)
        device = -1 if INTERPRETED else torch.cuda.current_device()
        compiled = self._compiled.get(device)
        if compiled is not None:
            compiled[grid](*arguments, *self._constants)
            return
        made = self._jitted[grid](*arguments, *self._constants, **self._options, enable_fp_fusion=False)
        if not INTERPRETED:
            self._compiled[device] = made


def current_stream() -> int:
    """The handle of the current device's current stream."""
    driver = triton.runtime.driver.active
    handle: int = driver.get_current_stream(driver.get_current_device())
    return handle


@triton.jit
def job_of(table_ptr: tl.tensor, base: tl.tensor, program: tl.tensor) -> tl.tensor:
    """The job that a program works on.

    Args:
        table_ptr: int64; from `base` on two jobs per number, in the order of programs.
        base: Where in the table they begin.
        program: Scalar.
    """
    return tl.load((table_ptr + base).to(tl.pointer_type(tl.int32), bitcast=True) + program)


@triton.jit
def tile_columns(i_tile: tl.tensor, BN: tl.constexpr, PARTS: tl.constexpr) -> tl.tensor:
    """The BN columns of a tile as (parts, columns / parts), so that the tile is (rows, parts, columns / parts).

    Triton then lays rows and parts along a thread's registers, and the warps along the rows; of a matrix it lays the
    warps along the columns, and every thread has a piece of every row. Threads follow the dimensions in the order of
    how contiguous offsets are, and ties are broken differently by triton 3.6 and 3.9; hence the kernels call two rows
    contiguous. Nothing else follows from that: a load is as wide as neighbours in the last dimension are aligned, of
    which nothing is claimed.

    Args:
        i_tile: Which tile of a row of tiles, scalar.
        BN: Columns of a tile.
        PARTS: Parts.
    """
    lanes: tl.constexpr = BN // PARTS
    return i_tile * BN + tl.arange(0, PARTS)[:, None] * lanes + tl.arange(0, lanes)[None, :]


def on_device(table: npt.NDArray[np.int64], device: torch.device) -> torch.Tensor:
    """The table on the device, by one copy.

    CUDA takes a copy of memory that is not pinned before it returns (the `Launch` keeps it longer, for systems whose
    GPU reads it where it is). Of more than 64 KB it may wait for the stream first, on which a step has nothing left
    when it slices; to pin the memory takes longer, 20 us of a step.
    """
    return torch.from_numpy(table).to(device, non_blocking=True)
