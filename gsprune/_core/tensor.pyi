from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FLOAT_DTYPES: tuple[str, ...]

def bind_torch(
    *,
    tensor_type: type[Tensor],
    parameter_type: type[Tensor],
    exchange_api: object,
    empty_strided: Callable[..., Tensor],
    float_dtypes: dict[torch.dtype, int],
    set: Callable[..., Tensor],
    untyped_storage: Callable[..., Any],
    increment_version: Callable[..., None],
) -> None: ...
