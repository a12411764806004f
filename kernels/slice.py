"""Slices of many tensors along all their axes at once, in one launch that reads only what is kept.

    out[i, j, ...] = tensor[keep_0[i], keep_1[j], ...]

In memory order a tensor whose axes a and b are sliced is (before, a, between, b, after): a matrix of before * a rows,
each with between * b * after words. A word is the largest of 1, 2, 4 and 8 bytes that divides what lies behind the
last sliced axis, so the kernel knows sizes, not dtypes. Every program copies one tile of one matrix: it looks its rows
and columns up in the kept positions and moves the words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import triton
import triton.language as tl
from torch import Tensor

from gsprune.kernels.launch import Launch, checked_programs, find_job, on_device
from gsprune.kernels.layout import Run, dense, dense_strides, memory_order, runs

__all__ = ["SLICE_WARPS", "Keeps", "slice_kernel", "slice_tensors"]

Keeps = tuple[tuple[int, npt.NDArray[np.int64]], ...]

# Rows x columns of a tile, all of 2048 words, 8 per thread: flat for vectors, tall for matrices of few columns.
_SHAPES: Final = {"flat": (1, 2048), "wide": (16, 128), "tall": (128, 16)}
_FLAT_ROWS, _FLAT_COLUMNS = (tl.constexpr(size) for size in _SHAPES["flat"])
_WIDE_ROWS, _WIDE_COLUMNS = (tl.constexpr(size) for size in _SHAPES["wide"])
_TALL_ROWS, _TALL_COLUMNS = (tl.constexpr(size) for size in _SHAPES["tall"])
_SHAPE_NAMES: Final = tuple(_SHAPES)
SLICE_WARPS: Final = 8
# Columns are told apart in int32, whose division is many times cheaper than int64's on a GPU; rows are int64.
_MAX_COLUMNS: Final = 2**31 - 1 - max(columns for _, columns in _SHAPES.values())
_IMPOSSIBLE: Final = 2**62  # tiles, of a matrix with more columns

_FIELDS = tl.constexpr(15)


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


class _Kind(NamedTuple):
    """What of a tensor and of its pattern decides how it is sliced, but for addresses and the positions themselves."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int
    alignment: int
    kept: tuple[tuple[int, int], ...]  # (axis, how many)


@dataclass(frozen=True)
class _Geometry:
    """How tensors of one kind are sliced.

    Attributes:
        out_shape: Shape of the result.
        out_strides: Its strides: no gaps, the axes in memory in the same order.
        tiles: Programs for one tensor.
        fields: The job's fields without addresses and positions: word, shape, rows, columns, column tiles, pitch,
            kept and full size of the first axis, kept and full size of the second, words behind it.
        first: The run whose positions make the first list; empty where all rows are kept.
        second: The runs whose positions, combined, make the second; empty where all columns are kept.
        paths: Branches taken.
    """

    out_shape: tuple[int, ...]
    out_strides: tuple[int, ...]
    tiles: int
    fields: tuple[int, ...]
    first: tuple[Run, ...]
    second: tuple[Run, ...]
    paths: frozenset[str]


@lru_cache(maxsize=4096)
def _geometry(kind: _Kind) -> _Geometry:
    """How to slice tensors of this kind, with the fewest tiles."""
    kept = dict(kind.kept)
    order = memory_order(kind.shape, kind.strides)
    out_shape = tuple(kept.get(axis, size) for axis, size in enumerate(kind.shape))
    axes = tuple(axis for axis in order if axis in kept)
    view = tuple(runs(kind.shape, order, axes))
    before, first, after = view[0].size, view[1].size, view[-1].size
    if len(axes) == 1:
        candidates = [
            (_cut((before, kept[axes[0]], first, 1, 1, 1, after), kind), view[1:2], ()),
            (_cut((before, 1, 1, 1, kept[axes[0]], first, after), kind), (), view[1:2]),
        ]
    else:
        # Third and further axes are merged with the second, and with what lies between, into one virtual axis.
        merged = view[3:-1]
        second = math.prod(run.size for run in merged)
        kept_second = math.prod(run.size if run.axis is None else kept[run.axis] for run in merged)
        sizes = (before, kept[axes[0]], first, view[2].size, kept_second, second, after)
        candidates = [(_cut(sizes, kind), view[1:2], merged)]
    (tiles, fields), rows, columns = min(candidates, key=lambda candidate: candidate[0][0])
    if tiles >= _IMPOSSIBLE:
        raise ValueError(
            f"a tensor of shape {kind.shape}, sliced to {out_shape}, keeps {fields[3]} words in one row of its matrix, "
            f"but the kernel counts at most {_MAX_COLUMNS}; split the tensor or use backend='torch'"
        )
    out_strides = dense_strides(out_shape, order)
    paths = frozenset({_SHAPE_NAMES[fields[1]], f"{fields[0]}-byte", f"{len(axes)}-axis"})
    return _Geometry(out_shape, out_strides, tiles, fields, rows, columns, paths)


def _cut(sizes: tuple[int, ...], kind: _Kind) -> tuple[int, tuple[int, ...]]:
    """Tiles and fields for a tensor seen as (before, first, between, second, after).

    Args:
        sizes: before, first kept, first, between, second kept, second, after.
        kind: For the bytes of an element and the alignment of the source.
    """
    before, kept_first, size_first, between, kept_second, size_second, after = sizes
    word = math.gcd(after * kind.itemsize, kind.alignment)  # alignment is 1, 2, 4 or 8, so the word is as well
    words = after * kind.itemsize // word
    rows, columns = before * kept_first, between * kept_second * words
    pitch = between * size_second * words
    counts = [math.ceil(rows / high) * math.ceil(columns / wide) for high, wide in _SHAPES.values()]
    shape = counts.index(min(counts))
    column_tiles = math.ceil(columns / _SHAPES[_SHAPE_NAMES[shape]][1])
    fields = (word, shape, rows, columns, column_tiles, pitch, kept_first, size_first, kept_second, size_second, words)
    return (counts[shape] if columns <= _MAX_COLUMNS else _IMPOSSIBLE), fields


def slice_tensors(
    tensors: Sequence[Tensor], patterns: Sequence[Keeps], pattern_of: Sequence[int]
) -> tuple[list[Tensor], list[Launch]]:
    """The kept parts of all tensors: one copy of tables to the device, one launch, no wait.

    Args:
        tensors: On one device, of any dtype and strides; what is not dense is copied first.
        patterns: Per pattern (axis, sorted kept positions) of at least one axis, each axis at most once.
        pattern_of: Per tensor the index of its pattern.

    Returns:
        Per tensor a new one of the same dtype and device that owns its storage and whose axes lie in memory in the
        same order, and what was launched.

    Raises:
        ValueError: A matrix is too large for the kernel's indices.
    """
    positions = _Positions(patterns)
    lengths = [tuple((axis, len(keep)) for axis, keep in pattern) for pattern in patterns]
    # A weight, its gradient and its moments are of one kind, so most of the work is done once for all of them.
    plans: dict[tuple[object, ...], tuple[int, _Geometry]] = {}
    fields: list[tuple[int, ...]] = []
    copies, results, addresses, plan_of = [], [], [], []
    for tensor, which in zip(tensors, pattern_of, strict=True):
        address = tensor.data_ptr()
        key = (tensor.shape, tensor.stride(), tensor.dtype, address & 7, which)
        plan = plans.get(key)
        if plan is None:
            source = dense(tensor)
            if source is not tensor:
                copies.append(source)  # must outlive the launch
                address = source.data_ptr()
                key = (source.shape, source.stride(), source.dtype, address & 7, which)
            if key not in plans:
                alignment = math.gcd(address, 8)
                kind = _Kind(tuple(source.shape), source.stride(), source.element_size(), alignment, lengths[which])
                cut = _geometry(kind)
                first, second = positions.index(which, cut.first), positions.index(which, cut.second)
                plans[key] = len(fields), cut
                fields.append((cut.tiles, *cut.fields[:8], first, *cut.fields[8:], second))
            plan = plans[key]
        index, cut = plan
        result = torch.empty_strided(cut.out_shape, cut.out_strides, dtype=tensor.dtype, device=tensor.device)
        results.append(result)
        addresses.append((address, result.data_ptr()))
        plan_of.append(index)
    if not results:
        return [], []
    rows = np.asarray(fields, np.int64)[plan_of]
    ends = np.cumsum(rows[:, 0])
    programs = checked_programs(int(ends[-1]), "slicing")
    if not programs:
        return results, []
    jobs = np.concatenate([np.asarray(addresses, np.int64), rows[:, 1:]], axis=1)
    table = on_device(np.concatenate([ends, jobs.ravel(), *positions.lists]), results[0].device)
    slice_kernel[(programs,)](table, len(ends) + jobs.size, len(ends), num_warps=SLICE_WARPS, enable_fp_fusion=False)
    paths = frozenset[str]().union(*(cut.paths for _, cut in plans.values()))
    return results, [Launch("slice", len(ends), programs, paths)]


class _Positions:
    """The kept positions of all patterns, one list behind the other, each list once."""

    def __init__(self, patterns: Sequence[Keeps]) -> None:
        # The first list serves every axis that isn't sliced: its only position.
        self.lists: list[npt.NDArray[np.int64]] = [np.zeros(1, np.int64)]
        self._patterns = [dict(pattern) for pattern in patterns]
        self._end = 1
        self._starts: dict[tuple[int, tuple[Run, ...]], int] = {}

    def index(self, pattern: int, along: tuple[Run, ...]) -> int:
        """Where a pattern's list for these runs begins; several neighbours in memory make one virtual axis."""
        if not along:
            return 0
        key = (pattern, along)
        if key not in self._starts:
            combined = self._combined(self._patterns[pattern], along)
            self._starts[key] = self._end
            self._end += len(combined)
            self.lists.append(combined)
        return self._starts[key]

    @staticmethod
    def _combined(keeps: dict[int, npt.NDArray[np.int64]], along: tuple[Run, ...]) -> npt.NDArray[np.int64]:
        """Kept positions of the virtual axis; rests between axes are kept as a whole."""
        parts = [np.arange(run.size) if run.axis is None else keeps[run.axis] for run in along]
        combined = parts[0]
        for run, part in zip(along[1:], parts[1:], strict=True):
            combined = (combined[:, None] * run.size + part).ravel()
        return combined
