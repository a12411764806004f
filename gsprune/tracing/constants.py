"""Constants that a forward makes: do their values differ along an axis, and are they random?

Zeros, ones and noise may be of any width. Values that go by their positions (``arange``, ``linspace``, ``eye``) may
not: made anew for fewer channels, the channels that stay would meet other ones.
"""

from __future__ import annotations

from torch import Tensor

from gsprune.tracing.shadow import Kind, Shadow

__all__ = ["UNEVEN", "is_noise", "mark_noise", "uneven_axes", "unmark_noise"]

UNEVEN = "values computed from the channels' positions"
_NOISE = "_gsprune_noise"


def uneven_axes(tensor: Tensor, shadow: Shadow) -> tuple[int, ...]:
    """The axes along which a constant's values differ; none if they are random or follow channels."""
    if shadow.kind is not Kind.CONSTANT or tensor.numel() < 2 or tensor.is_meta or is_noise(tensor):
        return ()
    data = tensor.detach()
    return tuple(
        axis
        for axis, size in enumerate(tensor.shape)
        if size > 1
        and all(layer.shape[axis] == 1 for layer in shadow.layers)
        and bool((data != data.narrow(axis, 0, 1)).any())
    )


def is_noise(tensor: Tensor) -> bool:
    """Whether the forward has drawn the tensor's values at random, or computed them from such."""
    return _NOISE in tensor.__dict__


def mark_noise(tensor: Tensor) -> None:
    """Note that a tensor's values are random."""
    tensor.__dict__[_NOISE] = True


def unmark_noise(tensor: Tensor) -> None:
    """Forget it: the tensor outlives the trace."""
    tensor.__dict__.pop(_NOISE, None)
