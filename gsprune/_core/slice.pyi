from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

class CutPlan(Protocol):
    patterns: list[tuple[tuple[int, npt.NDArray[np.int64]], ...]]
    tensors: list[Tensor]
    pattern_of: list[int]
    num_owned: int
    num_of_first: int
    entries: list[tuple[dict[Any, Any], Any, Any]]
    others: list[tuple[int, int | None, Any, Any]]

def plan_cuts(
    cuts: tuple[tuple[tuple[int, int], ...], ...],
    keeps: list[npt.NDArray[np.int64] | None],
    starts: npt.NDArray[np.int64],
    modules: list[tuple[list[Tensor], list[int], list[tuple[dict[str, Any], str, int, int, int]]]],
    states: list[dict[Tensor, dict[Any, Any]]],
) -> CutPlan: ...
def slice(
    tensors: list[Tensor],
    patterns: list[tuple[tuple[int, npt.NDArray[np.int64]], ...]],
    pattern_of: list[int],
    num_threads: int,
    isa: str,
) -> list[Tensor]: ...
def rewrite(
    tensors: list[Tensor],
    patterns: list[tuple[tuple[int, npt.NDArray[np.int64]], ...]],
    pattern_of: list[int],
    num_owned: int,
    entries: list[tuple[dict[Any, Any], Any, Any]],
    num_threads: int,
    isa: str,
) -> None: ...
