import numpy as np
import numpy.typing as npt

REDUCTIONS: tuple[str, ...]

def connected_components(
    num_nodes: int, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]: ...
def gather_units(
    sums: npt.NDArray[np.float64],
    vectors: npt.NDArray[np.int64],
    slots: npt.NDArray[np.int64],
    members: npt.NDArray[np.int64],
    first_unit: npt.NDArray[np.int64],
    ids: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]: ...
def reduce_members(
    statistics: npt.NDArray[np.float64],
    members: npt.NDArray[np.int64],
    first_unit: npt.NDArray[np.int64],
    reduction: str,
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
