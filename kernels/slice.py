"""Slices of many tensors along all their axes at once, in one launch that reads only kept elements.

    out[i, j, ...] = tensor[keep_0[i], keep_1[j], ...]

In memory order a tensor whose axes a and b are sliced is (before, a, between, b, after): a matrix of before * a rows,
each with between * b * after words. The word size is the largest of 1, 2, 4 and 8 bytes that divides the address and
the bytes after the last sliced axis. So the kernel needs sizes, not dtypes. A program copies tiles of one matrix: it
looks up the source rows and columns in the kept positions and moves the words.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import triton
import triton.language as tl
from torch import Tensor

from gsprune import _core
from gsprune.kernels.launch import Kernel, Launch, job_of, on_device, tile_columns

__all__ = ["SLICE_WARPS", "slice_kernel", "slice_tensors"]

_Pattern = tuple[tuple[int, npt.NDArray[np.int64]], ...]

# Rows x columns of a tile, all of 1024 words, 8 per thread: flat for vectors, tall for matrices of few columns.
_TILES: Final = [(1, 1024), (8, 128), (64, 16)]
_FLAT_ROWS, _FLAT_COLUMNS = (tl.constexpr(size) for size in _TILES[0])
_WIDE_ROWS, _WIDE_COLUMNS = (tl.constexpr(size) for size in _TILES[1])
_TALL_ROWS, _TALL_COLUMNS = (tl.constexpr(size) for size in _TILES[2])
# Parts of a tile's columns (`tile_columns`). With four, a thread has two rows and four columns instead of eight rows,
# and computes the offsets of its columns once per program.
_PARTS = tl.constexpr(4)
_TALL_PARTS = tl.constexpr(2)  # neighbouring threads then write 32 bytes, the size of a memory transaction
SLICE_WARPS: Final = 4
# A program works down one tile per `_BUSY_TILES` tiles of the launch, but at most `_MAX_STEPS`. So a large GPU is busy.
_MAX_STEPS: Final = 8
_BUSY_TILES: Final = 2048
# Columns are int32, because a GPU divides int32 many times faster than int64; rows are int64.
_MAX_COLUMNS: Final = 2**31 - 1 - max(columns for _, columns in _TILES)

_FIELDS = tl.constexpr(17)  # the fields are listed in csrc/launch/slice_tables.hpp


@triton.jit
def _copy(
    source: tl.tensor, target: tl.tensor, word: tl.tensor, o_source: tl.tensor, o_target: tl.tensor, mask: tl.tensor
) -> None:
    """target[o_target] = source[o_source] in words of 1, 2, 4 or 8 bytes, offsets counted in words."""
    if word == 4:
        b4 = tl.load(source.to(tl.pointer_type(tl.int32)) + o_source, mask=mask, other=0)
        tl.store(target.to(tl.pointer_type(tl.int32)) + o_target, b4, mask=mask)
    elif word == 8:
        b8 = tl.load(source.to(tl.pointer_type(tl.int64)) + o_source, mask=mask, other=0)
        tl.store(target.to(tl.pointer_type(tl.int64)) + o_target, b8, mask=mask)
    elif word == 2:
        b2 = tl.load(source.to(tl.pointer_type(tl.int16)) + o_source, mask=mask, other=0)
        tl.store(target.to(tl.pointer_type(tl.int16)) + o_target, b2, mask=mask)
    else:
        b1 = tl.load(source.to(tl.pointer_type(tl.int8)) + o_source, mask=mask, other=0)
        tl.store(target.to(tl.pointer_type(tl.int8)) + o_target, b1, mask=mask)


@triton.jit
def _slice_tiles(
    p_job: tl.tensor, keep_ptr: tl.tensor, i_local: tl.tensor, BM: tl.constexpr, BN: tl.constexpr, PARTS: tl.constexpr
) -> None:
    """Copy `steps` tiles of the target matrix, which lie below each other."""
    lanes: tl.constexpr = BN // PARTS
    source = tl.load(p_job + 1)
    target = tl.load(p_job + 2)
    word = tl.load(p_job + 3)
    rows = tl.load(p_job + 5)
    columns = tl.load(p_job + 6).to(tl.int32)
    column_tiles = tl.load(p_job + 7).to(tl.int32)
    steps = tl.load(p_job + 8).to(tl.int32)
    pitch = tl.load(p_job + 9)  # words of a row of the source
    kept_first = tl.load(p_job + 10)
    size_first = tl.load(p_job + 11)
    p_keep_first = keep_ptr + tl.load(p_job + 12)
    kept_second = tl.load(p_job + 13).to(tl.int32)
    size_second = tl.load(p_job + 14)
    after = tl.load(p_job + 15).to(tl.int32)
    p_keep_second = keep_ptr + tl.load(p_job + 16)

    i_row_tile = i_local // column_tiles
    i_column_tile = i_local - i_row_tile * column_tiles
    o_column = tile_columns(i_column_tile, BN, PARTS)  # [P, BL] int32
    m_column = o_column < columns
    i_pair = o_column // after
    i_between = i_pair // kept_second
    i_second = tl.load(p_keep_second + (i_pair - i_between * kept_second), mask=m_column, other=0)
    o_source_column = (i_between.to(tl.int64) * size_second + i_second) * after + (o_column - i_pair * after)

    i_step = steps * 0
    while i_step < steps:  # not `range`: see `score_kernel` in score.py
        o_row = (i_row_tile.to(tl.int64) * steps + i_step) * BM + tl.arange(0, BM)  # [BM] int64
        m_row = o_row < rows
        i_before = tl.zeros_like(o_row)
        if kept_first < rows:  # no axis before the first sliced one: no int64 division per row
            i_before = o_row // kept_first
        i_first = tl.load(p_keep_first + (o_row - i_before * kept_first), mask=m_row, other=0)
        o_source_row = (i_before * size_first + i_first) * pitch

        # Source columns are contiguous only in long kept runs. Declaring them so makes threads read in writing order.
        o_source = o_source_row[:, None, None] + o_source_column[None, :, :]  # [BM, P, BL] int64
        o_source = tl.max_contiguous(o_source, [2, 1, lanes])
        o_target = (o_row * columns)[:, None, None] + o_column[None, :, :]  # [BM, P, BL] int64
        o_target = tl.max_contiguous(o_target, [2, 1, lanes])
        _copy(source, target, word, o_source, o_target, m_row[:, None, None] & m_column[None, :, :])
        i_step += 1


@triton.jit(do_not_specialize=["keep_base", "owners"])
def slice_kernel(table_ptr: tl.tensor, keep_base: tl.tensor, owners: tl.tensor) -> None:
    """Copy the kept words of all jobs.

    Args:
        table_ptr: int64; begins with (jobs, _FIELDS).
        keep_base: index in the table of the first kept position.
        owners: index in the table of the programs' job numbers.
    """
    i_program = tl.program_id(0)
    p_job = table_ptr + job_of(table_ptr, owners, i_program).to(tl.int64) * _FIELDS
    i_local = i_program - tl.load(p_job).to(tl.int32)
    shape = tl.load(p_job + 4)
    if shape == 1:
        _slice_tiles(p_job, table_ptr + keep_base, i_local, _WIDE_ROWS, _WIDE_COLUMNS, _PARTS)
    elif shape == 0:
        _slice_tiles(p_job, table_ptr + keep_base, i_local, _FLAT_ROWS, _FLAT_COLUMNS, _PARTS)
    else:
        _slice_tiles(p_job, table_ptr + keep_base, i_local, _TALL_ROWS, _TALL_COLUMNS, _TALL_PARTS)


_SLICE: Final = Kernel(slice_kernel, num_warps=SLICE_WARPS)


def slice_tensors(
    tensors: list[Tensor], patterns: list[_Pattern], pattern_of: list[int]
) -> tuple[list[Tensor], list[Launch]]:
    """The kept parts of all tensors: one copy of a table to the device, one launch, no synchronisation.

    Args:
        tensors: on one device, of any dtype and strides; a tensor that is not dense is copied first.
        patterns: per pattern (axis, sorted kept positions), each axis at most once.
        pattern_of: per tensor the index of its pattern.

    Returns:
        per tensor a new one of the same dtype, device and order of axes in memory, which owns its storage; and the
        launches.

    Raises:
        ValueError: a pattern does not fit a tensor, or a matrix is too large for the kernel's indices.
    """
    tables = _core.launch.slice_tables(tensors, patterns, pattern_of, _TILES, _MAX_COLUMNS, _MAX_STEPS, _BUSY_TILES)
    launches = []
    if tables.programs:
        table = on_device(tables.table, tensors[0].device)
        _SLICE.launch(tables.programs, table, tables.keep_base, tables.owners)
        launches.append(Launch("slice", tables.num_jobs, tables.programs, tables.table))
    return _core.launch.take_results(tables.results), launches  # while the device works
