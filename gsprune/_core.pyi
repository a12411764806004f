from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

def connected_components(
    num_nodes: int, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]: ...
def select(scores: npt.NDArray[np.float32], keep: int) -> npt.NDArray[np.int64]: ...
def apply_all(
    calls: list[tuple[Callable[..., Any], *tuple[Any, ...]]], undo: list[tuple[Callable[..., Any], *tuple[Any, ...]]]
) -> None: ...
