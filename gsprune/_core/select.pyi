import numpy as np
import numpy.typing as npt

def select_groups(
    scores: npt.NDArray[np.float32], first_unit: npt.NDArray[np.int64], kept: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]: ...
