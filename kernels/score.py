"""Sums of a statistic along axes of many weights: one launch reads every weight once, a small second one folds.

    s_a[i] = sum over all elements with index i along axis a of f(w, g)
    f = |w|, w^2, w g, |w g| or (w g)^2, everything in float64

In memory order a dense tensor is a matrix. Its rows are all axes up to the first axis of interest, its columns are the
rest. `score_kernel` cuts all matrices into tiles, and each program works down a few of them. It writes row sums per
tile and column sums per program, as float64 partials. `fold_kernel` adds up the partials of every output element. The
order of summation depends on the shapes alone (no atomics), so the bits are the same at every call and on every device
of one kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import triton
import triton.language as tl
from torch import Tensor

from gsprune import _core
from gsprune.kernels.launch import Kernel, Launch, job_of, on_device, tile_columns

__all__ = ["FOLD_WARPS", "SCORE_REGISTERS", "SCORE_WARPS", "STATISTIC_CODES", "fold_kernel", "score_kernel", "sums"]

STATISTIC_CODES: Final = {name: code for code, name in enumerate(_core.score.STATISTICS)}
# Rows x columns of a tile; each thread holds four rows and four columns. A program is one warp, which needs no sums
# across warps; 21 programs share a multiprocessor.
_TILES: Final = [(4, 128), (32, 16)]
_WIDE_ROWS, _WIDE_COLUMNS = (tl.constexpr(size) for size in _TILES[0])
_NARROW_ROWS, _NARROW_COLUMNS = (tl.constexpr(size) for size in _TILES[1])
# For `tile_columns`. With a plain matrix, row sums would take 10 shuffles per element instead of 2.5; a multiprocessor
# makes 32 shuffles per clock.
_PARTS = tl.constexpr(4)
SCORE_WARPS: Final = 1
SCORE_REGISTERS: Final = 96
# The most tiles that one program works down: more tiles make fewer column partials.
_MAX_STEPS: Final = 32
# Programs take several tiles only if there are more tiles than a large GPU runs at once (132 multiprocessors x 21).
_BUSY_TILES: Final = 2048

_FIELDS = tl.constexpr(11)  # the fields are listed in csrc/launch/score_tables.hpp
_FOLD_FIELDS = tl.constexpr(6)
_FOLD_TERMS = tl.constexpr(32)
_FOLD_OUTPUTS = tl.constexpr(32)
FOLD_WARPS: Final = 4


@triton.jit
def _load_float64(address: tl.tensor, offsets: tl.tensor, mask: tl.tensor, DTYPE: tl.constexpr) -> tl.tensor:
    """The elements at `offsets` of the tensor at `address`, as float64; 0 where masked."""
    if DTYPE == 0:
        b = tl.load(address.to(tl.pointer_type(tl.float32)) + offsets, mask=mask, other=0.0)
    elif DTYPE == 1:
        b = tl.load(address.to(tl.pointer_type(tl.float64)) + offsets, mask=mask, other=0.0)
    elif DTYPE == 2:
        b = tl.load(address.to(tl.pointer_type(tl.bfloat16)) + offsets, mask=mask, other=0.0).to(tl.float32)
    else:
        b = tl.load(address.to(tl.pointer_type(tl.float16)) + offsets, mask=mask, other=0.0).to(tl.float32)
    return b.to(tl.float64)


@triton.jit
def _sum_tiles(
    p_job: tl.tensor,
    partial_ptr: tl.tensor,
    i_local: tl.tensor,
    STATISTIC: tl.constexpr,
    DTYPE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
) -> None:
    """Store row sums of `steps` tiles, which lie below each other, and column sums over all of them."""
    lanes: tl.constexpr = BN // _PARTS
    address = tl.load(p_job + 1)
    other = tl.load(p_job + 2)
    rows = tl.load(p_job + 4)
    columns = tl.load(p_job + 5)
    column_tiles = tl.load(p_job + 6)
    steps = tl.load(p_job + 7).to(tl.int32)
    row_partials = tl.load(p_job + 9)
    column_partials = tl.load(p_job + 10)

    i_row_tile = i_local // column_tiles
    i_column_tile = i_local - i_row_tile * column_tiles
    o_column = tile_columns(i_column_tile, BN, _PARTS)  # [P, BL] int64
    m_column = o_column < columns
    b_columns = tl.zeros((_PARTS, lanes), tl.float64)
    i_step = steps * 0
    while i_step < steps:  # not `range`: triton 3.6's interpreter cannot load its bound from memory with NumPy 2.4
        o_row = (i_row_tile * steps + i_step) * BM + tl.arange(0, BM)  # [BM] int64
        m_row = o_row < rows
        offsets = (o_row * columns)[:, None, None] + o_column[None, :, :]  # [BM, P, BL] int64
        offsets = tl.max_contiguous(offsets, [2, 1, lanes])
        mask = m_row[:, None, None] & m_column[None, :, :]
        b = _load_float64(address, offsets, mask, DTYPE)
        if STATISTIC >= 2:
            b = b * _load_float64(other, offsets, mask, DTYPE)
        if STATISTIC % 3 == 0:  # abs, abs_product
            b = tl.abs(b)
        elif STATISTIC % 3 == 1:  # square, square_product
            b = b * b
        if row_partials >= 0:
            b_rows = tl.sum(tl.sum(b, axis=1), axis=1)
            tl.store(partial_ptr + row_partials + i_column_tile * rows + o_row, b_rows, mask=m_row)
        b_columns += tl.sum(b, axis=0)
        i_step += 1
    if column_partials >= 0:
        tl.store(partial_ptr + column_partials + i_row_tile * columns + o_column, b_columns, m_column)


@triton.jit
def _sum_job(
    p_job: tl.tensor, partial_ptr: tl.tensor, i_local: tl.tensor, STATISTIC: tl.constexpr, DTYPE: tl.constexpr
) -> None:
    """`_sum_tiles` with the tile size that field 8 of the job selects."""
    if tl.load(p_job + 8) == 0:
        _sum_tiles(p_job, partial_ptr, i_local, STATISTIC, DTYPE, _WIDE_ROWS, _WIDE_COLUMNS)
    else:
        _sum_tiles(p_job, partial_ptr, i_local, STATISTIC, DTYPE, _NARROW_ROWS, _NARROW_COLUMNS)


@triton.jit(do_not_specialize=["owners"])
def score_kernel(table_ptr: tl.tensor, partial_ptr: tl.tensor, owners: tl.tensor, STATISTIC: tl.constexpr) -> None:
    """Store partial sums of every tile of every job.

    Args:
        table_ptr: int64; begins with (jobs, _FIELDS).
        partial_ptr: float64; per job (column tiles, rows) and (row tiles, columns), if the job needs them.
        owners: index in the table of the programs' job numbers.
        STATISTIC: one of STATISTIC_CODES.
    """
    i_program = tl.program_id(0).to(tl.int64)
    p_job = table_ptr + job_of(table_ptr, owners, i_program) * _FIELDS
    i_local = i_program - tl.load(p_job)
    dtype = tl.load(p_job + 3)
    # The branch is outside of the tile, so that a tile uses the registers of one dtype only.
    if dtype == 0:
        _sum_job(p_job, partial_ptr, i_local, STATISTIC, 0)
    elif dtype == 1:
        _sum_job(p_job, partial_ptr, i_local, STATISTIC, 1)
    elif dtype == 2:
        _sum_job(p_job, partial_ptr, i_local, STATISTIC, 2)
    else:
        _sum_job(p_job, partial_ptr, i_local, STATISTIC, 3)


@triton.jit(do_not_specialize=["base", "owners"])
def fold_kernel(
    table_ptr: tl.tensor, partial_ptr: tl.tensor, out_ptr: tl.tensor, base: tl.tensor, owners: tl.tensor
) -> None:
    """Sum (outer, length, inner) arrays of partials over outer and inner.

    Args:
        table_ptr: int64; from `base` on (folds, _FOLD_FIELDS).
        partial_ptr: float64, the output of `score_kernel`.
        out_ptr: float64, (length,) per fold, one after the other.
        base: index in the table of the first fold.
        owners: index in the table of the programs' fold numbers.
    """
    i_program = tl.program_id(0).to(tl.int64)
    p_job = table_ptr + base + job_of(table_ptr, owners, i_program) * _FOLD_FIELDS
    i_local = i_program - tl.load(p_job)
    partials = tl.load(p_job + 1)
    outer = tl.load(p_job + 2)
    length = tl.load(p_job + 3)
    inner = tl.load(p_job + 4)
    output = tl.load(p_job + 5)

    o_out = i_local * _FOLD_OUTPUTS + tl.arange(0, _FOLD_OUTPUTS)  # [BL] int64
    m_out = o_out < length
    terms = outer * inner
    b_total = tl.zeros((_FOLD_TERMS, _FOLD_OUTPUTS), tl.float64)
    start = terms * 0
    while start < terms:
        o_term = start + tl.arange(0, _FOLD_TERMS)  # [BT] int64
        mask = (o_term < terms)[:, None] & m_out[None, :]
        i_outer = o_term // inner
        offsets = (i_outer[:, None] * length + o_out[None, :]) * inner + (o_term - i_outer * inner)[:, None]
        b_total += tl.load(partial_ptr + partials + offsets, mask=mask, other=0.0)
        start += _FOLD_TERMS
    tl.store(out_ptr + output + o_out, tl.sum(b_total, axis=0), mask=m_out)


_SCORE: Final = {
    name: Kernel(score_kernel, code, num_warps=SCORE_WARPS, maxnreg=SCORE_REGISTERS)
    for name, code in STATISTIC_CODES.items()
}
_FOLD: Final = Kernel(fold_kernel, num_warps=FOLD_WARPS)


def sums(
    tensors: list[Tensor], axes: list[tuple[int, ...]], others: Sequence[Tensor | None] | None, statistic: str
) -> tuple[npt.NDArray[np.float64], list[Launch]]:
    """Sums of f(w, g) over everything but one axis, for every tensor and every one of its axes.

    A tensor with more than two axes of interest is read once per two of them. One copy takes the tables to the device,
    and one brings all sums back.

    Args:
        tensors: w of every job, on one device; float32, float64, bfloat16 or float16, any strides. A tensor that is
            not dense is copied first.
        axes: of each, in [0, ndim), each at most once.
        others: g of every job, with the shape and dtype of w; needed by the products. A g with other strides than w
            is copied first.
        statistic: a key of STATISTIC_CODES.

    Returns:
        the (shape[axis],) sums of all axes of one tensor after the other, and the launches.

    Raises:
        ValueError: a tensor, an axis or a second tensor does not fit; the message names it.
    """
    tensors, others = list(tensors), None if others is None else list(others)
    tables = _core.launch.score_tables(
        tensors, axes, others, statistic, _TILES, _FOLD_OUTPUTS.value, _MAX_STEPS, _BUSY_TILES
    )
    if not tables.num_sums:
        return np.zeros(0), []
    device = tensors[0].device
    table = on_device(tables.table, device)
    partials = torch.empty(tables.num_partials, dtype=torch.float64, device=device)
    out = torch.empty(tables.num_sums, dtype=torch.float64, device=device)
    launches = []
    if tables.programs:
        _SCORE[statistic].launch(tables.programs, table, partials, tables.owners)
        launches.append(Launch("score", tables.num_jobs, tables.programs, tables.table))
    _FOLD.launch(tables.fold_programs, table, partials, out, tables.fold_base, tables.fold_owners)
    launches.append(Launch("fold", tables.num_folds, tables.fold_programs, tables.table[tables.fold_base :]))
    return out.cpu().numpy(), launches  # the one place where the host waits for the device
