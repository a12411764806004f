"""Shapes and memory layouts that the core must serve."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

# 1, 7, 63, 64, 65 around the lanes and lines; widths past one tile of 2048 columns; widths of 1 in either place.
SHAPES = (
    (1,),
    (7,),
    (65,),
    (64, 63),
    (1, 1),
    (5, 3, 3, 3),
    (32, 16, 3, 3),
    (64, 1, 3, 3),
    (1, 65, 3, 3),
    (37, 2100),
    (300, 64, 1, 1),
    (3, 5, 7, 2, 2),
)

LAYOUTS = ("contiguous", "channels_last", "transposed", "strided", "expanded")


def lay_out(dense: Tensor, layout: str) -> Tensor | None:
    """`dense` with its elements arranged in memory as `layout` says; None where the shape does not allow it."""
    if layout == "contiguous":
        return dense.contiguous()
    if layout == "channels_last":
        return dense.contiguous(memory_format=torch.channels_last) if dense.ndim == 4 else None
    if layout == "transposed":
        return dense.transpose(0, 1).contiguous().transpose(0, 1) if dense.ndim > 1 else None
    if layout == "strided":
        holes = dense.new_empty([2 * size for size in dense.shape])
        view = holes[tuple(slice(None, None, 2) for _ in dense.shape)]
        return view.copy_(dense)
    return dense[:1].expand(dense.shape) if dense.ndim > 1 else None


def cases(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Random tensors of one shape in every layout."""
    dense = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    for layout in LAYOUTS:
        tensor = lay_out(dense, layout)
        if tensor is not None:
            yield layout, tensor


def random_keep(size: int, fraction: float, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """About `fraction` of the positions, at least one, sorted."""
    count = max(1, round(size * fraction))
    return np.sort(generator.choice(size, count, replace=False)).astype(np.int64)


def isas() -> list[str]:
    """The instruction sets this machine can run."""
    from gsprune import _core

    order = ["plain", "avx2"]
    return order[: order.index(_core.machine.best_isa()) + 1]
