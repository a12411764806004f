"""One operation, as a rule sees it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

__all__ = ["Call", "axis_of", "outputs_of"]


def axis_of(axis: int, ndim: int) -> int:
    """A possibly negative axis as one in [0, ndim)."""
    return axis + ndim if axis < 0 else axis


def outputs_of(out: Any) -> list[torch.Tensor]:
    """The tensors that one operation returned."""
    several = out if isinstance(out, tuple | list) else [out]
    return [item for item in several if isinstance(item, torch.Tensor)]


class Call(NamedTuple):
    """One operation.

    Attributes:
        op: its name ("aten.add"), also of an in-place operation.
        args: positional arguments.
        kwargs: arguments by name.
        out: what it returned; None before it has run.
        shape_before: the shape of the first argument before the operation, which ``squeeze_`` changes; None if the
            first argument is no strided tensor.
        stride_before: its strides then, which ``as_strided_`` changes.
    """

    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any = None
    shape_before: tuple[int, ...] | None = None
    stride_before: tuple[int, ...] = ()

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """An argument by position or name."""
        if index < len(self.args):
            return self.args[index]
        return self.kwargs.get(name, default)

    def axis(self, index: int, name: str = "dim", default: int = 0) -> int:
        """An argument that is an axis of the first argument, in [0, ndim)."""
        return axis_of(int(self.arg(index, name, default)), max(self.args[0].ndim, 1))

    def tensors(self) -> list[torch.Tensor]:
        """All tensors among the arguments, also in lists, in order."""
        found: list[torch.Tensor] = []
        for value in (*self.args, *self.kwargs.values()):
            if isinstance(value, torch.Tensor):
                found.append(value)
            elif isinstance(value, list | tuple):
                found.extend(item for item in value if isinstance(item, torch.Tensor))
        return found

    def outputs(self) -> list[torch.Tensor]:
        """The tensors that the operation returned."""
        return outputs_of(self.out)
