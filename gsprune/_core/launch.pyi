from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

class ScoreTables(Protocol):
    table: npt.NDArray[np.int64]
    num_jobs: int
    owners: int
    fold_base: int
    num_folds: int
    fold_owners: int
    programs: int
    fold_programs: int
    num_partials: int
    num_sums: int
    copies: list[Tensor]

class SliceTables(Protocol):
    results: object
    table: npt.NDArray[np.int64]
    num_jobs: int
    keep_base: int
    owners: int
    programs: int
    copies: list[Tensor]

def score_tables(
    tensors: list[Tensor],
    axes: list[tuple[int, ...]],
    others: list[Tensor | None] | None,
    statistic: str,
    tiles: list[tuple[int, int]],
    fold_outputs: int,
    max_steps: int,
    busy_tiles: int,
) -> ScoreTables: ...
def slice_tables(
    tensors: list[Tensor],
    patterns: list[tuple[tuple[int, npt.NDArray[np.int64]], ...]],
    pattern_of: list[int],
    tiles: list[tuple[int, int]],
    max_columns: int,
    max_steps: int,
    busy_tiles: int,
) -> SliceTables: ...
def take_results(results: object) -> list[Tensor]: ...
def prepare_exchange(
    tensors: list[Tensor], num_owned: int, entries: list[tuple[dict[Any, Any], Any, Any]]
) -> object: ...
def install_exchange(exchange: object, replacements: list[Tensor]) -> None: ...
