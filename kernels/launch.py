"""Parts that both kernel files share: a program's job, the launcher, and the record of a launch."""

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

# `triton.jit` also reads this setting at import: in one process, kernels are either compiled or interpreted on the CPU.
INTERPRETED: Final = bool(triton.knobs.runtime.interpret)
DEFAULT_STREAM: Final = 0  # the handle of CUDA's default stream, on any device


@dataclass(frozen=True)
class Launch:
    """The record of one launch. Tests check it.

    Attributes:
        kernel: name of the kernel.
        jobs: the number of tensors (of the fold kernel: of folds) that the launch worked on.
        programs: size of the grid.
        table: the table that the programs read; it begins with a row of fields per job.
    """

    kernel: str
    jobs: int
    programs: int
    table: npt.NDArray[np.int64]


class Kernel:
    """A kernel that is launched without Triton's launcher once it is compiled for a device.

    Triton's own launcher inspects all arguments and options at every launch to find the compiled kernel. These kernels
    have only one per device: integers are not specialized, and torch's allocator aligns tensors more than Triton needs.

    Args:
        jitted: the result of `triton.jit`.
        constants: the last positional arguments, known at compile time.
        options: options of the compilation, such as `num_warps`.
    """

    def __init__(self, jitted: Any, *constants: int, **options: Any) -> None:
        self._jitted, self._constants, self._options = jitted, constants, options
        self._compiled: dict[int, Any] = {}  # by device

    def launch(self, programs: int, *arguments: Any) -> None:
        """Launch on the current device and stream.

        Args:
            programs: size of the grid.
            arguments: the kernel's arguments before its constants: tensors from torch's allocator, integers below 2^31.
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
        table_ptr: int64; from `base` on it holds one int32 job number per program.
        base: index of the first job number.
        program: scalar.
    """
    return tl.load((table_ptr + base).to(tl.pointer_type(tl.int32), bitcast=True) + program)


@triton.jit
def tile_columns(i_tile: tl.tensor, BN: tl.constexpr, PARTS: tl.constexpr) -> tl.tensor:
    """The BN columns of a tile as (parts, columns / parts), so that the tile is (rows, parts, columns / parts).

    Triton then spreads rows and parts over a thread's registers, and warps over the rows. With a matrix it would spread
    warps over the columns, and every thread would hold a piece of every row. Triton orders dimensions by how contiguous
    their offsets are, and versions 3.6 and 3.9 break ties differently. So the kernels declare two rows contiguous. The
    declaration has no other effect: the width of a load depends on the last dimension alone.

    Args:
        i_tile: index of the tile in its row of tiles, scalar.
        BN: columns of a tile.
        PARTS: number of parts.
    """
    lanes: tl.constexpr = BN // PARTS
    return i_tile * BN + tl.arange(0, PARTS)[:, None] * lanes + tl.arange(0, lanes)[None, :]


def on_device(table: npt.NDArray[np.int64], device: torch.device) -> torch.Tensor:
    """The table on the device, by one copy.

    CUDA copies memory that is not pinned before the call returns. (The `Launch` keeps the table longer, for systems
    whose GPU reads host memory directly.) Above 64 KB the call may wait for the stream, which is empty when a step
    slices. Pinning the memory would cost 20 us per step.
    """
    return torch.from_numpy(table).to(device, non_blocking=True)
