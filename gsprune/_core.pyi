from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

sources: str

def bind_torch(
    tensor_type: type[Tensor],
    parameter_type: type[Tensor],
    exchange_api: object,
    empty_strided: Callable[..., Tensor],
    float_dtypes: dict[torch.dtype, int],
) -> None: ...
def bind_exchange(
    set: Callable[..., Tensor], untyped_storage: Callable[..., Any], increment_version: Callable[..., None]
) -> None: ...
def best_isa() -> str: ...
def last_level_cache_bytes() -> int: ...
def axis_sums(
    tensors: list[Tensor],
    axes: list[tuple[int, ...]],
    others: list[Tensor | None] | None,
    statistic: str,
    num_threads: int,
    isa: str,
) -> list[tuple[npt.NDArray[np.float64], ...]]: ...
def flat_axis_sums(
    tensors: list[Tensor],
    axes: list[tuple[int, ...]],
    others: list[Tensor | None] | None,
    statistic: str,
    num_threads: int,
    isa: str,
) -> npt.NDArray[np.float64]: ...
def slice(
    tensors: list[Tensor],
    patterns: list[tuple[tuple[int, npt.NDArray[np.int64]], ...]],
    pattern_of: list[int],
    num_threads: int,
    isa: str,
) -> list[Tensor]: ...
def select(scores: npt.NDArray[np.float32], keep: int) -> npt.NDArray[np.int64]: ...
def select_groups(
    scores: npt.NDArray[np.float32], first_unit: npt.NDArray[np.int64], kept: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]: ...
def kept_units(
    limits: npt.NDArray[np.int64], first_unit: npt.NDArray[np.int64], sparsities: npt.NDArray[np.float64] | float
) -> npt.NDArray[np.int64]: ...
def first_not_finite(scores: npt.NDArray[np.float32]) -> int: ...
def connected_components(
    num_nodes: int, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]: ...
def rewrite(
    tensors: list[Tensor],
    patterns: list[tuple[tuple[int, npt.NDArray[np.int64]], ...]],
    pattern_of: list[int],
    num_owned: int,
    entries: list[tuple[dict[Any, Any], Any, Any]],
    num_threads: int,
    isa: str,
) -> None: ...
def prepare_exchange(
    tensors: list[Tensor], num_owned: int, entries: list[tuple[dict[Any, Any], Any, Any]]
) -> object: ...
def install_exchange(exchange: object, replacements: list[Tensor]) -> None: ...
def score_tables(
    tensors: list[Tensor],
    axes: list[tuple[int, ...]],
    others: list[Tensor | None] | None,
    statistic: str,
    tiles: list[tuple[int, int]],
    fold_outputs: int,
    max_steps: int,
    busy_tiles: int,
) -> tuple[npt.NDArray[np.int64], int, int, int, int, int, int, int, int, int, list[Tensor]]: ...
def slice_tables(
    tensors: list[Tensor],
    patterns: list[tuple[tuple[int, npt.NDArray[np.int64]], ...]],
    pattern_of: list[int],
    tiles: list[tuple[int, int]],
    max_columns: int,
    max_steps: int,
    busy_tiles: int,
) -> tuple[object, npt.NDArray[np.int64], int, int, int, int, list[Tensor]]: ...
def take_results(results: object) -> list[Tensor]: ...
def plan_cuts(
    cuts: tuple[tuple[tuple[int, int], ...], ...],
    keeps: list[npt.NDArray[np.int64] | None],
    starts: npt.NDArray[np.int64],
    modules: list[tuple[list[Tensor], list[int], list[tuple[dict[str, Any], str, int, int, int]]]],
    states: list[dict[Tensor, dict[Any, Any]]],
) -> tuple[
    list[tuple[tuple[int, npt.NDArray[np.int64]], ...]],
    list[Tensor],
    list[int],
    int,
    int,
    list[tuple[dict[Any, Any], Any, Any]],
    list[tuple[int, int | None, Any, Any]],
]: ...
def trim_reserve() -> int: ...
def pool_use() -> tuple[int, int]: ...
def reduce_members(
    statistics: npt.NDArray[np.float64],
    members: npt.NDArray[np.int64],
    first_unit: npt.NDArray[np.int64],
    reduction: str,
) -> npt.NDArray[np.float32]: ...
def gather_units(
    sums: npt.NDArray[np.float64],
    vectors: npt.NDArray[np.int64],
    slots: npt.NDArray[np.int64],
    members: npt.NDArray[np.int64],
    first_unit: npt.NDArray[np.int64],
    ids: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]: ...
def shrink_units(
    keep: npt.NDArray[np.bool_],
    alive: npt.NDArray[np.bool_],
    first_unit: npt.NDArray[np.int64],
    ids: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
) -> tuple[
    npt.NDArray[np.bool_],
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    list[npt.NDArray[np.int64] | None],
]: ...
