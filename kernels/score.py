"""Sums of a statistic along axes of many weights: one launch reads every weight once, a small second one folds.

    s_a[i] = sum over all elements with index i along axis a of f(w, g)
    f = |w|, w^2, w g, |w g| or (w g)^2, everything in float64

In memory order a dense tensor is a matrix: rows are everything up to and with the first axis of interest, columns are
the rest. `score_kernel` cuts all matrices into tiles, one program each, and writes for every tile its row sums and its
column sums as float64 partials; `fold_kernel` adds up the partials of every output element. Both have a fixed order of
summation that depends on the shapes alone: no atomics, the same bits at every call and on every device of one kind.
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

from gsprune.kernels.launch import Launch, find_job, on_device
from gsprune.kernels.layout import dense, memory_order
from gsprune.kernels.score_tables import DTYPE_CODES, FOLD_OUTPUTS, NARROW, WIDE, ScoreTables, ScoreTask, score_tables

__all__ = [
    "FOLD_WARPS",
    "SCORE_REGISTERS",
    "SCORE_WARPS",
    "STATISTIC_CODES",
    "axis_sums",
    "fold_kernel",
    "score_kernel",
]

STATISTIC_CODES: Final = {"abs": 0, "square": 1, "product": 2, "abs_product": 3, "square_product": 4}
_WIDE_ROWS, _WIDE_COLUMNS = (tl.constexpr(size) for size in WIDE)
_NARROW_ROWS, _NARROW_COLUMNS = (tl.constexpr(size) for size in NARROW)
SCORE_WARPS: Final = 8
SCORE_REGISTERS: Final = 80

_FIELDS = tl.constexpr(10)  # address, other, dtype, rows, columns, column tiles, steps, narrow, row and column partials
_FOLD_FIELDS = tl.constexpr(5)  # partials, outer, length, inner, output
_FOLD_TERMS = tl.constexpr(32)
_FOLD_OUTPUTS = tl.constexpr(FOLD_OUTPUTS)
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
def _score_tile(
    p_job: tl.tensor,
    partial_ptr: tl.tensor,
    i_local: tl.tensor,
    STATISTIC: tl.constexpr,
    DTYPE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
) -> None:
    """Row sums of `steps` tiles below each other, and the column sums over all of them."""
    address = tl.load(p_job)
    other = tl.load(p_job + 1)
    rows = tl.load(p_job + 3)
    columns = tl.load(p_job + 4)
    column_tiles = tl.load(p_job + 5)
    steps = tl.load(p_job + 6).to(tl.int32)
    row_partials = tl.load(p_job + 8)
    column_partials = tl.load(p_job + 9)

    i_row_tile = i_local // column_tiles
    i_column_tile = i_local % column_tiles
    o_column = i_column_tile * BN + tl.arange(0, BN)  # [BN] int64
    m_column = o_column < columns
    b_columns = tl.zeros((BN,), tl.float64)
    i_step = steps * 0
    while i_step < steps:  # not `range`, whose bound triton 3.6's interpreter cannot take from memory with NumPy 2.4
        o_row = (i_row_tile * steps + i_step) * BM + tl.arange(0, BM)  # [BM] int64
        m_row = o_row < rows
        offsets = o_row[:, None] * columns + o_column[None, :]  # [BM, BN] int64
        mask = m_row[:, None] & m_column[None, :]
        b = _load_float64(address, offsets, mask, DTYPE)
        if STATISTIC >= 2:
            b = b * _load_float64(other, offsets, mask, DTYPE)
        if STATISTIC % 3 == 0:  # abs, abs_product
            b = tl.abs(b)
        elif STATISTIC % 3 == 1:  # square, square_product
            b = b * b
        if row_partials >= 0:
            tl.store(partial_ptr + row_partials + i_column_tile * rows + o_row, tl.sum(b, axis=1), mask=m_row)
        b_columns += tl.sum(b, axis=0)
        i_step += 1
    if column_partials >= 0:
        tl.store(partial_ptr + column_partials + i_row_tile * columns + o_column, b_columns, mask=m_column)


@triton.jit
def _score_tiles(
    p_job: tl.tensor, partial_ptr: tl.tensor, i_local: tl.tensor, STATISTIC: tl.constexpr, DTYPE: tl.constexpr
) -> None:
    """Tiles of the shape that the job's table row names."""
    if tl.load(p_job + 7) == 0:
        _score_tile(p_job, partial_ptr, i_local, STATISTIC, DTYPE, _WIDE_ROWS, _WIDE_COLUMNS)
    else:
        _score_tile(p_job, partial_ptr, i_local, STATISTIC, DTYPE, _NARROW_ROWS, _NARROW_COLUMNS)


@triton.jit(do_not_specialize=["num_jobs"])
def score_kernel(table_ptr: tl.tensor, partial_ptr: tl.tensor, num_jobs: tl.tensor, STATISTIC: tl.constexpr) -> None:
    """Partial sums of every tile of every job.

    Args:
        table_ptr: (num_jobs + num_jobs * _FIELDS,) int64: the ends for `find_job`, then the jobs.
        partial_ptr: float64; per job (column tiles, rows) and (row tiles, columns), each where the job wants it.
        num_jobs: Jobs in the table.
        STATISTIC: One of STATISTIC_CODES.
    """
    i_tile = tl.program_id(0).to(tl.int64)
    i_job = find_job(table_ptr, i_tile, num_jobs)
    first = tl.load(table_ptr + i_job - 1, mask=i_job > 0, other=0)
    p_job = table_ptr + num_jobs + i_job * _FIELDS
    dtype = tl.load(p_job + 2)
    # Told apart out here, so that a tile needs the registers of one dtype and not of all.
    if dtype == 0:
        _score_tiles(p_job, partial_ptr, i_tile - first, STATISTIC, 0)
    elif dtype == 1:
        _score_tiles(p_job, partial_ptr, i_tile - first, STATISTIC, 1)
    elif dtype == 2:
        _score_tiles(p_job, partial_ptr, i_tile - first, STATISTIC, 2)
    else:
        _score_tiles(p_job, partial_ptr, i_tile - first, STATISTIC, 3)


@triton.jit(do_not_specialize=["base", "num_jobs"])
def fold_kernel(
    table_ptr: tl.tensor, partial_ptr: tl.tensor, out_ptr: tl.tensor, base: tl.tensor, num_jobs: tl.tensor
) -> None:
    """Sums of partials that lie as (outer, length, inner), over outer and inner.

    Args:
        table_ptr: int64; from `base` on (num_jobs + num_jobs * _FOLD_FIELDS,): the ends for `find_job`, then the jobs.
        partial_ptr: float64, what `score_kernel` wrote.
        out_ptr: float64, (length,) per job, one after the other.
        base: Where in the table the fold's part begins.
        num_jobs: Vectors to make.
    """
    i_tile = tl.program_id(0).to(tl.int64)
    i_job = find_job(table_ptr + base, i_tile, num_jobs)
    first = tl.load(table_ptr + base + i_job - 1, mask=i_job > 0, other=0)
    p_job = table_ptr + base + num_jobs + i_job * _FOLD_FIELDS
    partials = tl.load(p_job)
    outer = tl.load(p_job + 1)
    length = tl.load(p_job + 2)
    inner = tl.load(p_job + 3)
    output = tl.load(p_job + 4)

    o_out = (i_tile - first) * _FOLD_OUTPUTS + tl.arange(0, _FOLD_OUTPUTS)  # [BL] int64
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


def axis_sums(
    pairs: Sequence[tuple[Tensor, Tensor | None]], axes: Sequence[tuple[int, ...]], statistic: str
) -> tuple[list[tuple[npt.NDArray[np.float64], ...]], list[Launch]]:
    """Sums of f(w, g) over everything but one axis, for every tensor and every one of its axes.

    A tensor with more than two axes of interest is read once per two of them. One copy takes the tables to the device,
    and one brings all sums back.

    Args:
        pairs: (w, g) per job, on one device; float32, float64, bfloat16 or float16, g as w or None. The same shapes
            and dtypes; any strides, but what is not dense, or where g lies differently from w, is copied first.
        axes: Per job, the axes in [0, ndim), each at most once.
        statistic: A key of STATISTIC_CODES; the products need every g.

    Returns:
        Per job one (shape[axis],) float64 vector per axis, and what was launched.
    """
    tasks, addresses, owners, held = [], [], [], []
    for index, ((weight, other), wanted) in enumerate(zip(pairs, axes, strict=True)):
        tensor = dense(weight)
        partner = tensor if other is None else _laid_out_as(tensor, other)
        held += [tensor, partner]  # copies must outlive the launch
        shape, order = tuple(tensor.shape), memory_order(tensor.shape, tensor.stride())
        for start in range(0, len(wanted), 2):
            tasks.append(ScoreTask(shape, order, tuple(wanted[start : start + 2]), DTYPE_CODES[tensor.dtype]))
            addresses.append((tensor.data_ptr(), partner.data_ptr()))
            owners.append(index)
    sums: list[dict[int, npt.NDArray[np.float64]]] = [{} for _ in pairs]
    launches: list[Launch] = []
    if tasks:
        tables = score_tables(tuple(tasks))
        vectors = _launch(tables, addresses, statistic, held[0].device, launches)
        for (task, axis, _), vector in zip(tables.outputs, vectors, strict=True):
            sums[owners[task]][axis] = vector
    return [tuple(found[axis] for axis in wanted) for found, wanted in zip(sums, axes, strict=True)], launches


def _launch(
    tables: ScoreTables, addresses: list[tuple[int, int]], statistic: str, device: torch.device, launches: list[Launch]
) -> list[npt.NDArray[np.float64]]:
    """Both launches, and the host's one read: the vectors of `tables.outputs`."""
    host = tables.table.copy()
    jobs = host[tables.jobs : tables.base].reshape(tables.jobs, _FIELDS.value)
    jobs[:, :2] = addresses
    table = on_device(host, device)
    partials = torch.empty(tables.num_partials, dtype=torch.float64, device=device)
    lengths = [length for _, _, length in tables.outputs]
    out = torch.empty(sum(lengths), dtype=torch.float64, device=device)
    if tables.programs:
        score_kernel[(tables.programs,)](
            table,
            partials,
            tables.jobs,
            STATISTIC_CODES[statistic],
            num_warps=SCORE_WARPS,
            maxnreg=SCORE_REGISTERS,
            enable_fp_fusion=False,
        )
        launches.append(Launch("score", tables.jobs, tables.programs, tables.paths | {statistic}))
    if tables.fold_programs:
        fold_kernel[(tables.fold_programs,)](
            table, partials, out, tables.base, len(lengths), num_warps=FOLD_WARPS, enable_fp_fusion=False
        )
        launches.append(Launch("fold", len(lengths), tables.fold_programs, frozenset()))
    return np.split(_to_host(out), np.cumsum(lengths)[:-1])


def _to_host(out: Tensor) -> npt.NDArray[np.float64]:
    """The vector on the host: the one place where the host waits for the device."""
    if out.device.type != "cuda":
        return out.numpy()
    host = torch.empty(out.shape, dtype=out.dtype, pin_memory=True)
    host.copy_(out, non_blocking=True)
    torch.cuda.current_stream(out.device).synchronize()
    return host.numpy()


def _laid_out_as(tensor: Tensor, other: Tensor) -> Tensor:
    """`other`, or a copy of it that lies in memory as `tensor` does."""
    strides = zip(tensor.shape, tensor.stride(), other.stride(), strict=True)
    if all(size == 1 or wanted == given for size, wanted, given in strides):
        return other
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=other.dtype, device=other.device).copy_(
        other.detach()
    )
