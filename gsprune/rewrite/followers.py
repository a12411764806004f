"""Modules of the same architecture (target network, EMA copy) that are rewritten with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gsprune.rewrite.tensors import canonical_tensors, named_tensors, unwrapped

__all__ = ["as_followers", "matched_tensors"]


def as_followers(followers: nn.Module | Sequence[nn.Module], model: nn.Module) -> tuple[nn.Module, ...]:
    """The followers as modules of the model's own structure: wrappers taken off.

    Raises:
        TypeError: a follower is not a module.
        ValueError: a follower is the model itself or given twice.
    """
    if isinstance(followers, nn.Module):
        followers = (followers,)
    try:
        given = tuple(followers)
    except TypeError:
        raise TypeError(
            f"`followers` must be a torch.nn.Module or a sequence of them, got {type(followers).__name__}"
        ) from None
    inner: list[nn.Module] = []
    for i, follower in enumerate(given):
        if not isinstance(follower, nn.Module):
            raise TypeError(f"`followers[{i}]` must be a torch.nn.Module, got {type(follower).__name__}")
        module = unwrapped(follower)
        if isinstance(module, AveragedModel):
            module = unwrapped(module.module)
        if module is model or any(module is other for other in inner):
            raise ValueError(f"`followers[{i}]` is the model itself or was given twice; pass each other module once")
        inner.append(module)
    return tuple(inner)


def matched_tensors(
    follower: nn.Module, index: int, shapes: Mapping[str, tuple[int, ...]], aliases: Mapping[str, str]
) -> dict[str, Tensor]:
    """The follower's tensors under all their names.

    Args:
        follower: a module with the model's structure.
        index: its position in `followers`, for messages.
        shapes: the model's canonical names and present shapes.
        aliases: the model's other names of tied tensors; a follower may have untied them.

    Raises:
        ValueError: a tensor is missing, superfluous or of another shape; names the first.
    """
    tensors = named_tensors(follower)
    for name, shape in shapes.items():
        if name not in tensors:
            raise ValueError(f"`followers[{index}]` has no tensor {name!r}: it must have the structure of `model`")
        if tuple(tensors[name].shape) != shape:
            raise ValueError(
                f"`followers[{index}]`: {name!r} has shape {tuple(tensors[name].shape)}, the model's has {shape}; pass"
                " every follower to each prune_step, or copy the model anew"
            )
    extra = [name for name in canonical_tensors(follower) if name not in shapes and name not in aliases]
    if extra:
        raise ValueError(
            f"`followers[{index}]` has a tensor {extra[0]!r} that `model` lacks: it must have its structure"
        )
    return tensors
