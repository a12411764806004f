import numpy as np
import numpy.typing as npt
from torch import Tensor

STATISTICS: tuple[str, ...]

def axis_sums(
    tensors: list[Tensor],
    axes: list[tuple[int, ...]],
    others: list[Tensor | None] | None,
    statistic: str,
    num_threads: int,
    isa: str,
) -> npt.NDArray[np.float64]: ...
