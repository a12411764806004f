"""Modules that are rewritten with the model: others of its architecture (target network, EMA) and copies inside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gsprune.rewrite.tensors import canonical_tensors, unwrapped
from gsprune.tracing.copies import has_structure, possible_originals
from gsprune.tracing.names import named_tensors
from gsprune.tracing.wrappers import is_scripted, refusal_of

__all__ = ["Follower", "as_followers", "matched_tensors"]

Follower = nn.Module | tuple[nn.Module, nn.Module]


def as_followers(
    followers: nn.Module | Sequence[Follower], model: nn.Module
) -> tuple[tuple[nn.Module, ...], dict[str, str]]:
    """The followers outside of the model, without wrappers, and {copy: original} of those that are parts of it.

    A submodule of the model follows the one other submodule that has its structure; a pair (copy, original) names it.

    Raises:
        TypeError: a follower is not a module, or is scripted.
        ValueError: a follower is the model itself or given twice, or a submodule without one counterpart.
    """
    if isinstance(followers, nn.Module):
        followers = (followers,)
    try:
        modules = tuple(followers)
    except TypeError:
        raise TypeError(
            f"`followers` must be a torch.nn.Module or a sequence of them, got {type(followers).__name__}"
        ) from None
    name_of = {id(module): name for name, module in model.named_modules()} if modules else {}
    outside: list[nn.Module] = []
    copies: dict[str, str] = {}
    for i, follower in enumerate(modules):
        parts = follower if isinstance(follower, tuple) else (follower,)
        for part in parts:
            _check_module(part, i)
        if isinstance(follower, tuple):
            copies |= _pair(follower, i, model, name_of)
            continue
        module = _inside_wrapper(_bare(follower), model)
        if module is model or any(module is other for other in outside):
            raise ValueError(f"`followers[{i}]` is the model itself or was given twice; pass each other module once")
        if id(module) in name_of:
            copy = name_of[id(module)]
            copies[copy] = _counterpart(copy, i, model)
        else:
            outside.append(module)
    return tuple(outside), copies


def _check_module(follower: object, index: int) -> None:
    if not isinstance(follower, nn.Module):
        raise TypeError(
            f"`followers[{index}]` must be a torch.nn.Module, got {type(follower).__name__}; slice tensors of another"
            " object (a list of averages) after the step: tensor.data = report.slice(name, tensor.data)"
        )
    if is_scripted(follower):
        raise TypeError(
            f"`followers[{index}]` is a scripted or traced TorchScript module ({type(follower).__name__}), which cannot"
            " be changed: pass the Python module, and script it again after the step"
        )
    refusal = refusal_of(follower, f"`followers[{index}]`")
    if refusal is not None:
        raise TypeError(f"{refusal}; as a follower, pass its `.module`")


def _bare(follower: nn.Module) -> nn.Module:
    """The follower without wrappers."""
    module = unwrapped(follower)
    return unwrapped(module.module) if isinstance(module, AveragedModel) else module


def _inside_wrapper(follower: nn.Module, model: nn.Module) -> nn.Module:
    """The only child of a wrapper (tianshou's ``EvalModeModuleWrapper``), if it has the model's tensors; else itself.

    A wrapper has no tensor under a name of the model.
    """
    children = list(follower.children())
    if type(follower) is type(model) or len(children) != 1:
        return follower
    names, inside = named_tensors(model).keys(), named_tensors(children[0]).keys()
    return children[0] if names == inside and names.isdisjoint(named_tensors(follower)) else follower


def _pair(pair: tuple[nn.Module, ...], index: int, model: nn.Module, name_of: Mapping[int, str]) -> dict[str, str]:
    """{copy: original} of a pair that the user named."""
    names = [name_of.get(id(_bare(module)), "") for module in pair]
    if len(names) != 2 or not all(names):
        raise ValueError(
            f"`followers[{index}]` must be a module or a pair (copy, original) of two submodules of `model`, got"
            f" {len(pair)} modules of which {sum(map(bool, names))} are submodules"
        )
    copy, original = names
    if copy == original or not has_structure(model, copy, original):
        raise ValueError(
            f"`followers[{index}]` pairs {copy!r} with {original!r}, which must be two submodules with the same"
            " classes, tensor names and shapes"
        )
    return {copy: original}


def _counterpart(copy: str, index: int, model: nn.Module) -> str:
    """The one submodule that has the structure of `copy`."""
    found = possible_originals(model, copy)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(
            f"`followers[{index}]` is {copy!r}, a part of the model, but no other submodule has its classes, tensor"
            " names and shapes: a copy must have the structure of its original; copies of different widths cannot stay"
            " in step"
        )
    raise ValueError(
        f"`followers[{index}]` is {copy!r}, a part of the model, and {len(found)} submodules have its structure:"
        f" {', '.join(map(repr, found))}; name the one it follows by a pair:"
        f" followers=[(model.{copy}, model.{found[0]})]"
    )


def matched_tensors(
    follower: nn.Module, index: int, shapes: Mapping[str, tuple[int, ...]], aliases: Mapping[str, str]
) -> dict[str, Tensor]:
    """The follower's tensors by the model's names.

    In a container of tensors without submodules (torchrl's ``TensorDictParams``, a dictionary of averages), names may
    have other separators, and tensors may be missing.

    `index` is the position in `followers`, for messages. `shapes` and `aliases` are the model's; the follower's tensors
    need not be tied.

    Raises:
        ValueError: a tensor is missing, superfluous or of another shape; names the first.
    """
    tensors = named_tensors(follower)
    is_container = next(follower.children(), None) is None and any("." in name for name in shapes)
    if is_container:
        tensors = _renamed(tensors, [*shapes, *aliases])
    for name, shape in shapes.items():
        if name not in tensors:
            if is_container and not tensors.keys().isdisjoint(shapes):
                continue
            first = f" (its first is {next(iter(tensors))!r})" if tensors else ""
            raise ValueError(
                f"`followers[{index}]` has no tensor {name!r}{first}: it must have the structure of `model`; if it has"
                " the names of a module around `model`, prune that module; slice tensors of another container after"
                " the step: tensor.data = report.slice(name, tensor.data)"
            )
        if tuple(tensors[name].shape) != shape:
            raise ValueError(
                f"`followers[{index}]`: {name!r} has shape {tuple(tensors[name].shape)}, the model's has {shape}; pass"
                " every follower to each prune_step, or copy the model again"
            )
    # An average's container may count its updates.
    own = [name for name, tensor in tensors.items() if tensor.ndim] if is_container else canonical_tensors(follower)
    extra = [name for name in own if name not in shapes and name not in aliases]
    if extra:
        raise ValueError(
            f"`followers[{index}]` has a tensor {extra[0]!r} that `model` lacks: it must have its structure"
        )
    return tensors


def _renamed(tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Tensors by the model's names, which may have other separators; other tensors keep their names."""
    plain: dict[str, list[str]] = {}
    for name in names:
        plain.setdefault(_letters(name), []).append(name)
    unique = {key: found[0] for key, found in plain.items() if len(found) == 1}
    exact = {name for found in plain.values() for name in found}
    return {name if name in exact else unique.get(_letters(name), name): tensor for name, tensor in tensors.items()}


def _letters(name: str) -> str:
    """A tensor's name without separators; containers have ``/``, ``_``, ``:`` or nothing for a dot."""
    return re.sub(r"[\W_]", "", name)
