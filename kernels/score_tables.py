"""The tables of the scoring launches: how tensors become matrices, matrices tiles, and tiles programs.

Everything here follows from shapes, strides and dtypes alone, so it is kept between calls; addresses are put in later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from gsprune.kernels.launch import checked_programs
from gsprune.kernels.layout import runs

__all__ = ["DTYPE_CODES", "FOLD_OUTPUTS", "NARROW", "WIDE", "ScoreTables", "ScoreTask", "score_tables"]

DTYPE_CODES: Final = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_DTYPE_NAMES: Final = ("float32", "float64", "bfloat16", "float16")

# Rows x columns of a tile: 8 elements per thread, so that 80 registers suffice and three programs share a
# multiprocessor; with 16 per thread the compiler takes up to 168 or spills (docs/gpu.md).
WIDE: Final = (16, 128)
NARROW: Final = (128, 16)
FOLD_OUTPUTS: Final = 32
# A program goes down up to this many tiles, which makes the column partials that much fewer ...
_MAX_STEPS: Final = 16
# ... but only where there are more tiles than keep a large GPU busy: 132 multiprocessors x 3 programs, 5 times over.
_BUSY_TILES: Final = 2048


@dataclass(frozen=True)
class _Fold:
    """Partials of one vector: (outer, length, inner), summed over outer and inner; outer is counted per tile."""

    axis: int
    outer: int
    length: int
    inner: int


@dataclass(frozen=True)
class _Matrix:
    """A tensor as rows x columns, and which axis is summed from its row and its column partials."""

    rows: int
    columns: int
    by_row: _Fold | None
    by_column: _Fold | None

    @property
    def narrow(self) -> bool:
        """Whether the tall tiles cover it with fewer of them."""
        return self.tiles(*NARROW) < self.tiles(*WIDE)

    def tiles(self, rows: int, columns: int) -> int:
        """How many tiles of that shape cover the matrix."""
        return math.ceil(self.rows / rows) * math.ceil(self.columns / columns)


def _as_matrix(shape: tuple[int, ...], order: tuple[int, ...], axes: tuple[int, ...]) -> _Matrix:
    """The matrix whose partials give the sums along one or two axes, with as few tiles as can be."""
    view = runs(shape, order, axes)
    sizes = [run.size for run in view]
    if len(axes) == 2:
        before, first, between, second, after = sizes
        return _Matrix(
            rows=before * first,
            columns=between * second * after,
            by_row=_Fold(_axis(view[1].axis), before, first, 1),
            by_column=_Fold(_axis(view[3].axis), between, second, after),
        )
    before, length, after = sizes
    axis = _axis(view[1].axis)
    as_rows = _Matrix(before * length, after, by_row=_Fold(axis, before, length, 1), by_column=None)
    as_columns = _Matrix(before, length * after, by_row=None, by_column=_Fold(axis, 1, length, after))
    return min(as_rows, as_columns, key=lambda matrix: min(matrix.tiles(*WIDE), matrix.tiles(*NARROW)))


def _axis(axis: int | None) -> int:
    """The axis of a run that has one."""
    assert axis is not None
    return axis


class ScoreTask(NamedTuple):
    """What the tables hold of one job, all but its addresses: tensors that agree in it share their tables."""

    shape: tuple[int, ...]
    order: tuple[int, ...]
    axes: tuple[int, ...]
    dtype: int


@dataclass(frozen=True)
class ScoreTables:
    """Both kernels' tables for a list of tasks, with zeros for addresses.

    Attributes:
        table: int64, for both launches.
        base: Where the fold's part begins.
        jobs: Number of jobs of `score_kernel`; of `fold_kernel` it is len(outputs).
        programs: Its grid.
        fold_programs: The grid of `fold_kernel`.
        num_partials: float64 elements of scratch.
        outputs: Per vector (task, axis, length), in the order of the output buffer.
        paths: Branches taken.
    """

    table: npt.NDArray[np.int64]
    base: int
    jobs: int
    programs: int
    fold_programs: int
    num_partials: int
    outputs: tuple[tuple[int, int, int], ...]
    paths: frozenset[str]


@lru_cache(maxsize=64)
def score_tables(tasks: tuple[ScoreTask, ...]) -> ScoreTables:
    """The tables for jobs of these shapes; kept, since a plan whose widths rest is scored again and again."""
    matrices = [_as_matrix(task.shape, task.order, task.axes) for task in tasks]
    all_tiles = sum(min(matrix.tiles(*WIDE), matrix.tiles(*NARROW)) for matrix in matrices)
    most_steps = min(_MAX_STEPS, max(1, all_tiles // _BUSY_TILES))
    ends, rows, fold_ends, fold_rows, outputs = [], [], [], [], []
    paths = set()
    programs = fold_programs = num_partials = output = 0
    for index, (task, matrix) in enumerate(zip(tasks, matrices, strict=True)):
        tile_rows, tile_columns = NARROW if matrix.narrow else WIDE
        column_tiles = math.ceil(matrix.columns / tile_columns)
        steps = max(1, min(most_steps, math.ceil(matrix.rows / tile_rows)))
        row_tiles = math.ceil(matrix.rows / (tile_rows * steps))
        programs += row_tiles * column_tiles
        starts = [-1, -1]
        for side, fold, tiles in ((0, matrix.by_row, column_tiles), (1, matrix.by_column, row_tiles)):
            if fold is None:
                continue
            starts[side] = num_partials
            fold_programs += math.ceil(fold.length / FOLD_OUTPUTS)
            fold_ends.append(fold_programs)
            fold_rows.append((num_partials, tiles * fold.outer, fold.length, fold.inner, output))
            outputs.append((index, fold.axis, fold.length))
            num_partials += tiles * (matrix.rows, matrix.columns)[side]
            output += fold.length
        ends.append(programs)
        rows.append((0, 0, task.dtype, matrix.rows, matrix.columns, column_tiles, steps, int(matrix.narrow), *starts))
        paths |= {"narrow" if matrix.narrow else "wide", _DTYPE_NAMES[task.dtype]}
        paths |= {"down" if steps > 1 else "single"}
        paths |= {name for name, start in zip(("rows", "columns"), starts, strict=True) if start >= 0}
    parts = [np.asarray(part, np.int64).ravel() for part in (ends, rows, fold_ends, fold_rows)]
    return ScoreTables(
        table=np.concatenate(parts),
        base=len(parts[0]) + len(parts[1]),
        jobs=len(tasks),
        programs=checked_programs(programs, "scoring"),
        fold_programs=checked_programs(fold_programs, "folding the scores"),
        num_partials=num_partials,
        outputs=tuple(outputs),
        paths=frozenset(paths),
    )
