"""Slices of many tensors along all their axes at once, in one launch that reads only what is kept.

    out[i, j, ...] = tensor[keep_0[i], keep_1[j], ...]

In memory order a tensor whose axes a and b are sliced is (before, a, between, b, after): a matrix of before * a rows,
each with between * b * after words. A word is the largest of 1, 2, 4 and 8 bytes that divides what lies behind the
last sliced axis, so the kernel knows sizes, not dtypes. Every program copies one tile of one matrix: it looks its rows
and columns up in the kept positions and moves the words.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import triton
import triton.language as tl
from torch import Tensor

from gsprune import _core
from gsprune.kernels.launch import Launch, find_job, on_device

__all__ = ["SLICE_WARPS", "Keeps", "slice_kernel", "slice_tensors"]

Keeps = tuple[tuple[int, npt.NDArray[np.int64]], ...]

# Rows x columns of a tile, all of 2048 words, 8 per thread: flat for vectors, tall for matrices of few columns.
_TILES: Final = [(1, 2048), (16, 128), (128, 16)]
_FLAT_ROWS, _FLAT_COLUMNS = (tl.constexpr(size) for size in _TILES[0])
_WIDE_ROWS, _WIDE_COLUMNS = (tl.constexpr(size) for size in _TILES[1])
_TALL_ROWS, _TALL_COLUMNS = (tl.constexpr(size) for size in _TILES[2])
SLICE_WARPS: Final = 8
# Columns are told apart in int32, whose division is many times cheaper than int64's on a GPU; rows are int64.
_MAX_COLUMNS: Final = 2**31 - 1 - max(columns for _, columns in _TILES)

_FIELDS = tl.constexpr(15)  # the fields are listed in csrc/slice_tables.hpp


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
def _slice_tile(p_job: tl.tensor, keep_ptr: tl.tensor, i_local: tl.tensor, BM: tl.constexpr, BN: tl.constexpr) -> None:
    """One tile of the output matrix."""
    source = tl.load(p_job)
    target = tl.load(p_job + 1)
    word = tl.load(p_job + 2)
    rows = tl.load(p_job + 4)
    columns = tl.load(p_job + 5).to(tl.int32)
    column_tiles = tl.load(p_job + 6)
    pitch = tl.load(p_job + 7)  # words of a row of the source
    kept_first = tl.load(p_job + 8)
    size_first = tl.load(p_job + 9)
    p_keep_first = keep_ptr + tl.load(p_job + 10)
    kept_second = tl.load(p_job + 11).to(tl.int32)
    size_second = tl.load(p_job + 12)
    after = tl.load(p_job + 13).to(tl.int32)
    p_keep_second = keep_ptr + tl.load(p_job + 14)

    i_row_tile = i_local // column_tiles
    o_row = i_row_tile * BM + tl.arange(0, BM)  # [BM] int64
    m_row = o_row < rows
    i_before = tl.zeros_like(o_row)
    if kept_first < rows:  # an int64 division per row, spared where nothing lies before the first axis
        i_before = o_row // kept_first
    i_first = tl.load(p_keep_first + (o_row - i_before * kept_first), mask=m_row, other=0)
    o_source_row = (i_before * size_first + i_first) * pitch

    o_column = (i_local - i_row_tile * column_tiles).to(tl.int32) * BN + tl.arange(0, BN)  # [BN] int32
    m_column = o_column < columns
    i_pair = o_column // after
    i_between = i_pair // kept_second
    i_second = tl.load(p_keep_second + (i_pair - i_between * kept_second), mask=m_column, other=0)
    o_source_column = (i_between.to(tl.int64) * size_second + i_second) * after + (o_column - i_pair * after)

    o_source = o_source_row[:, None] + o_source_column[None, :]  # [BM, BN] int64
    # True of long kept runs only; it makes neighbouring threads read neighbouring columns, as they write them. No load
    # gets wider by it, since nothing is claimed of alignment.
    o_source = tl.max_contiguous(o_source, [1, BN])
    o_target = o_row[:, None] * columns + o_column[None, :]  # [BM, BN] int64
    _copy(source, target, word, o_source, o_target, m_row[:, None] & m_column[None, :])


@triton.jit(do_not_specialize=["keep_base", "num_jobs"])
def slice_kernel(table_ptr: tl.tensor, keep_base: tl.tensor, num_jobs: tl.tensor) -> None:
    """All kept words of all jobs.

    Args:
        table_ptr: int64: (num_jobs,) ends for `find_job`, (num_jobs, _FIELDS) jobs, then the kept positions.
        keep_base: Where in the table the kept positions begin.
        num_jobs: Jobs in the table.
    """
    i_tile = tl.program_id(0).to(tl.int64)
    i_job = find_job(table_ptr, i_tile, num_jobs)
    i_local = i_tile - tl.load(table_ptr + i_job - 1, mask=i_job > 0, other=0)
    p_job = table_ptr + num_jobs + i_job * _FIELDS
    shape = tl.load(p_job + 3)
    if shape == 1:
        _slice_tile(p_job, table_ptr + keep_base, i_local, _WIDE_ROWS, _WIDE_COLUMNS)
    elif shape == 0:
        _slice_tile(p_job, table_ptr + keep_base, i_local, _FLAT_ROWS, _FLAT_COLUMNS)
    else:
        _slice_tile(p_job, table_ptr + keep_base, i_local, _TALL_ROWS, _TALL_COLUMNS)


def slice_tensors(
    tensors: list[Tensor], patterns: list[Keeps], pattern_of: list[int]
) -> tuple[list[Tensor], list[Launch]]:
    """The kept parts of all tensors: one copy of tables to the device, one launch, no wait.

    Args:
        tensors: On one device, of any dtype and strides; what is not dense is copied first.
        patterns: Per pattern (axis, sorted kept positions), each axis at most once.
        pattern_of: Per tensor the index of its pattern.

    Returns:
        Per tensor a new one of the same dtype and device that owns its storage and whose axes lie in memory in the
        same order, and what was launched.

    Raises:
        ValueError: A pattern does not fit a tensor, or a matrix is too large for the kernel's indices.
    """
    tables = _SliceTables(*_core.slice_tables(tensors, patterns, pattern_of, _TILES, _MAX_COLUMNS))
    if not tables.programs:
        return tables.results, []
    table = on_device(tables.table, tensors[0].device)
    slice_kernel[(tables.programs,)](
        table, tables.keep_base, tables.num_jobs, num_warps=SLICE_WARPS, enable_fp_fusion=False
    )
    return tables.results, [Launch("slice", tables.num_jobs, tables.programs, tables.table)]


class _SliceTables(NamedTuple):
    """What `_core.slice_tables` gives; csrc/slice_tables.hpp says what is in the table.

    Attributes:
        copies: Nobody reads them here, but the table has their addresses: they must outlive the launch.
    """

    results: list[Tensor]
    table: npt.NDArray[np.int64]
    num_jobs: int
    keep_base: int
    programs: int
    copies: list[Tensor]
