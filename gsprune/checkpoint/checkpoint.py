"""Saves a network with its optimizer and pruning state, and loads it into a dense network.

A file has the tensors at their present widths, the kept indices in the dense numbering, the first-seen widths, and the
stored sizes in user code that were adjusted. So a newly built dense model can load it. The model is then as small as
the saved one, and further steps prune it as they would have pruned the saved one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gsprune.arrays import IntArray
from gsprune.checkpoint.document import read_document, write_document
from gsprune.errors import CheckpointError
from gsprune.interrupts import PostponedInterrupts
from gsprune.rewrite.optimizers.wrappers import as_optimizers, with_inner
from gsprune.rewrite.recorded_widths import rewrite_to
from gsprune.rewrite.session import SESSION_ATTRIBUTE, Session, session_of
from gsprune.rewrite.size_links import SizeLink
from gsprune.rewrite.tensors import canonical_tensors, named_tensors, unwrapped
from gsprune.rewrite.transaction import Transaction
from gsprune.selection import dense_shapes
from gsprune.tracing.graph import Group, Member

__all__ = ["Contents", "load", "read_contents", "save"]

Kept = dict[str, dict[int, IntArray]]
Shape = tuple[int, ...]

_GROUP_FIELDS = ("name", "num_units", "width_per_unit", "kind")


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    **metadata: Any,
) -> None:
    """Write a network, dense or pruned, to one file: safetensors with JSON in its header, no pickle.

    The write is atomic: after a crash the old file or the complete new one exists. Tied tensors are written once.
    Buffers that are not part of the ``state_dict`` are not written.

    Args:
        model: the network.
        path: the file, e.g. ``agent.safetensors``; its folder exists.
        optimizer: one or several optimizers, whose states are saved, too.
        metadata: values that `load` will return: None, booleans, numbers, strings, tensors, and lists, tuples and
            dictionaries of them.

    Raises:
        TypeError: a value cannot be stored; the message names it.
        OSError: the file cannot be written.
    """
    file = _checked_path(path)
    module = unwrapped(_checked_module("model", model))
    optimizers = as_optimizers(optimizer, ("state_dict",))
    _refuse_extra_state(module)
    tensors = canonical_tensors(module)
    state = session_of(module)
    written = _persistent(module, tensors)
    changed = [] if state is None else list(state.kept)
    document = {
        "tensors": {name: tensors[name] for name in written},
        "layout": {name: _layout(tensors[name]) for name in dict.fromkeys([*written, *changed])},
        "aliases": _aliases(module, tensors),
        "pruning": None if state is None else _pruning_document(state),
        "optimizers": [{"type": type(each).__name__, "state": each.state_dict()} for each in optimizers],
        "metadata": metadata,
    }
    write_document(file, document)


def load(
    path: str | os.PathLike[str], into: nn.Module, optimizer: Optimizer | Sequence[Optimizer] | None = None
) -> dict[str, Any]:
    """Read a file of `save` into a model of the same architecture, dense or of the file's widths.

    The model's parameters stay the same objects, so optimizers of them stay valid. On failure the model and the
    optimizers are not changed.

    Args:
        path: the file.
        into: the model; newly built, or as wide as the saved one.
        optimizer: one or several optimizers of `into`'s parameters, in the order of `save`; None ignores the file's
            optimizer states.

    Returns:
        the metadata of `save`.

    Raises:
        CheckpointError: the file is damaged, or has another architecture or optimizer. The message names the first
            difference.
        OSError: the file cannot be read.
        RewriteError: `into` must shrink, but its parameters are in shared memory or parts of a larger tensor.
        TypeError: `into` is not a module, or `path` is no path.
    """
    module = unwrapped(_checked_module("into", into))
    optimizers = as_optimizers(optimizer, ("state_dict", "load_state_dict"))
    file = _checked_path(path)
    saved = _saved(file, read_document(file))
    tensors = canonical_tensors(module)
    must_shrink = _check_architecture(saved, module, tensors)
    _check_optimizers(saved, optimizers)
    torch.clear_autocast_cache()  # an autocast block around this call would use cast copies of the old weights
    with PostponedInterrupts(), Transaction() as transaction:
        if must_shrink:
            rewrite_to(module, saved.kept, transaction=transaction, attributes=saved.attributes)
        contents = [tensor.to(tensors[name].device) for name, tensor in saved.tensors.items()]
        transaction.swap([tensors[name] for name in saved.tensors], contents)
        # Setting the present values makes the transaction remember them. A wrapper's `state` may be a property that
        # reads the optimizer inside, so the attributes of both are remembered.
        attributes = [vars(each) for each in with_inner(optimizers) if hasattr(each, "__dict__")]
        transaction.set_entries([(values, key, value) for values in attributes for key, value in values.items()])
        for each, record in zip(optimizers, saved.optimizers, strict=False):
            each.load_state_dict(record["state"])
        transaction.set_entries([(module.__dict__, SESSION_ATTRIBUTE, _pruning_state(saved, session_of(module)))])
    return saved.metadata


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of a file of `save` that can be read without a model.

    Attributes:
        groups: groups of coupled channels with their saved widths; () if the network was never pruned.
        initial_widths: group -> width before the first pruning step.
        shapes: tensor -> shape, for all parameters and buffers in the file.
        dense_shapes: tensor -> shape before the first pruning step.
        metadata: the metadata of `save`.
    """

    groups: tuple[Group, ...]
    initial_widths: Mapping[str, int]
    shapes: Mapping[str, Shape]
    dense_shapes: Mapping[str, Shape]
    metadata: Mapping[str, Any]


def read_contents(path: str | os.PathLike[str]) -> Contents:
    """Read the contents of a file of `save` without a model.

    Raises:
        CheckpointError: the file is damaged, or was not written by `save`.
        OSError: the file cannot be read.
    """
    file = _checked_path(path)
    saved = _saved(file, read_document(file))
    return Contents(
        groups=() if saved.pruning is None else _groups(saved.pruning["groups"]),
        initial_widths={} if saved.pruning is None else saved.pruning["initial_widths"],
        shapes={name: tuple(tensor.shape) for name, tensor in saved.tensors.items()},
        dense_shapes={name: tuple(saved.dense_shape(name)) for name in saved.tensors},
        metadata=saved.metadata,
    )


@dataclass(frozen=True, slots=True)
class _Saved:
    """The parts of a file's document.

    Attributes:
        path: the file, for messages.
        tensors: name -> contents, for all tensors in the file.
        layout: name -> shape and dtype, for all tensors in the file and all pruned tensors.
        aliases: other names of tied tensors -> canonical name.
        pruning: the result of `_pruning_document`; None if the model was never pruned.
        kept: tensor -> {axis: kept indices}.
        attributes: module -> {attribute: value}.
        optimizers: type and state of each optimizer.
        metadata: the metadata of `save`.
    """

    path: Path
    tensors: dict[str, Tensor]
    layout: dict[str, tuple[Shape, str]]
    aliases: dict[str, str]
    pruning: dict[str, Any] | None
    kept: Kept
    attributes: dict[str, dict[str, Any]]
    optimizers: list[dict[str, Any]]
    metadata: dict[str, Any]

    def dense_shape(self, name: str) -> Shape:
        """The first-seen shape of a tensor."""
        dense: Mapping[str, Shape] = {} if self.pruning is None else self.pruning["dense_shapes"]
        return dense.get(name, self.layout[name][0])


_PRUNING_FIELDS = ("initial_widths", "kept", "dense_shapes", "groups", "attributes", "links", "refused")


def _saved(path: Path, document: dict[str, Any]) -> _Saved:
    try:
        pruning = document["pruning"]
        lacking = [] if pruning is None else [name for name in _PRUNING_FIELDS if name not in pruning]
        if lacking:
            raise CheckpointError(
                f"{path} lacks {lacking} of the pruning state: it was written by another version of gsprune;"
                " read it with that version"
            )
        kept = {} if pruning is None else pruning["kept"]
        return _Saved(
            path=path,
            tensors=document["tensors"],
            layout=document["layout"],
            aliases=document["aliases"],
            pruning=pruning,
            kept={name: {axis: index.numpy() for axis, index in axes.items()} for name, axes in kept.items()},
            attributes={} if pruning is None else pruning["attributes"],
            optimizers=document["optimizers"],
            metadata=document["metadata"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} lacks a part of a checkpoint: {error!r}") from error


def _pruning_document(state: Session) -> dict[str, Any]:
    dense = dict(state.dense_shapes)
    groups = state.recorded_groups
    if state.graph is not None:
        dense |= dense_shapes(state.graph, state.initial_widths)
        groups = state.graph.groups
    kept = state.kept
    return {
        "initial_widths": state.initial_widths,
        "kept": {
            name: {axis: torch.from_numpy(np.array(index)) for axis, index in axes.items()}
            for name, axes in kept.items()
        },
        "dense_shapes": {name: dense[name] for name in kept},
        "groups": _groups_document(groups),
        "attributes": state.attributes,
        "links": [asdict(link) for link in state.links],
        "refused": state.refused,
    }


def _groups_document(groups: Sequence[Group]) -> dict[str, Any]:
    """Groups as JSON-compatible data. Index vectors are stored separately, because few of them are distinct."""
    vectors: dict[bytes, int] = {}
    documents = [
        {
            **{name: getattr(group, name) for name in _GROUP_FIELDS},
            "members": [
                (member.tensor, member.axis, vectors.setdefault(member.units.tobytes(), len(vectors)), member.role)
                for member in group.members
            ],
        }
        for group in groups
    ]
    return {
        "groups": documents,
        "vectors": [torch.tensor(np.frombuffer(vector, dtype=np.int64), dtype=torch.int32) for vector in vectors],
    }


def _groups(document: Mapping[str, Any]) -> tuple[Group, ...]:
    vectors = [vector.numpy().astype(np.int64) for vector in document["vectors"]]
    return tuple(
        Group(
            **{name: group[name] for name in _GROUP_FIELDS},
            members=tuple(Member(tensor, axis, vectors[i], role) for tensor, axis, i, role in group["members"]),
        )
        for group in document["groups"]
    )


def _pruning_state(saved: _Saved, before: Session | None) -> Session:
    """The session of the loaded model. The next step traces it again, with the session's former example if any."""
    example = None if before is None else before.example
    if saved.pruning is None:
        return Session(structure=None, example=example, initial_widths={})
    return Session(
        structure=None,
        example=example,
        initial_widths=saved.pruning["initial_widths"],
        kept_before=saved.kept,
        attributes=saved.attributes,
        links=tuple(SizeLink(**link) for link in saved.pruning["links"]),
        refused=saved.pruning["refused"],
        dense_shapes=saved.pruning["dense_shapes"],
        recorded_groups=_groups(saved.pruning["groups"]),
    )


def _check_architecture(saved: _Saved, module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Compare a file with a model; return True if the model is dense and must shrink to the file's widths."""
    for name in [*saved.layout, *_persistent(module, tensors)]:
        if name not in tensors:
            raise _difference(saved, f"the file has {name!r}, but the model does not")
        if name not in saved.layout:
            raise _difference(saved, f"the model has {name!r}, but the file does not")
    aliases = _aliases(module, tensors)
    for name in [*saved.aliases, *aliases]:
        if saved.aliases.get(name) != aliases.get(name):
            where = "file" if name in saved.aliases else "model"
            raise _difference(saved, f"in the {where} {name!r} is tied to another tensor")
    for name, (_, dtype) in saved.layout.items():
        if str(tensors[name].dtype) != dtype:
            raise _difference(saved, f"{name!r} is {dtype} in the file and {tensors[name].dtype} in the model")
    shapes = {name: tuple(tensors[name].shape) for name in saved.layout}
    if all(shape == saved.layout[name][0] for name, shape in shapes.items()):
        return False
    for name, shape in shapes.items():
        if shape != saved.dense_shape(name):
            small = saved.layout[name][0]
            widths = f"{saved.dense_shape(name)}" + (
                f" (pruned to {small})" if small != saved.dense_shape(name) else ""
            )
            raise _difference(saved, f"{name!r} has shape {widths} in the file and {shape} in the model")
    return True


def _difference(saved: _Saved, text: str) -> CheckpointError:
    return CheckpointError(
        f"{saved.path} holds another architecture: {text}; load it into a freshly built model of the saved architecture"
    )


def _check_optimizers(saved: _Saved, optimizers: Sequence[Optimizer]) -> None:
    if optimizers and len(optimizers) != len(saved.optimizers):
        raise CheckpointError(
            f"{saved.path} holds {len(saved.optimizers)} optimizers, got {len(optimizers)}; pass as many as were saved"
        )
    for each, record in zip(optimizers, saved.optimizers, strict=False):
        if type(each).__name__ != record["type"]:
            raise CheckpointError(f"{saved.path} holds the state of {record['type']}, got a {type(each).__name__}")
        sizes = [len(group["params"]) for group in each.param_groups]
        # A wrapper's state may have other entries; its `load_state_dict` checks them.
        saved_groups = record["state"].get("param_groups")
        saved_sizes = sizes if saved_groups is None else [len(group["params"]) for group in saved_groups]
        if sizes != saved_sizes:
            raise CheckpointError(
                f"{saved.path} holds a {record['type']} with parameter groups of {saved_sizes} parameters, got "
                f"groups of {sizes}"
            )


def _layout(tensor: Tensor) -> tuple[Shape, str]:
    return tuple(tensor.shape), str(tensor.dtype)


def _aliases(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    first_name = {id(tensor): name for name, tensor in tensors.items()}
    return {name: first_name[id(tensor)] for name, tensor in named_tensors(module).items() if name not in tensors}


def _persistent(module: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors in the ``state_dict``: all but buffers registered with ``persistent=False``."""
    passing = {
        f"{prefix}.{name}" if prefix else name
        for prefix, owner in module.named_modules()
        for name in owner._non_persistent_buffers_set
    }
    return [name for name in tensors if name not in passing]


def _refuse_extra_state(module: nn.Module) -> None:
    for name, owner in module.named_modules():
        if type(owner).get_extra_state is not nn.Module.get_extra_state:
            raise TypeError(
                f"module {name or type(owner).__name__!r} has an extra state (get_extra_state), which gsprune.save "
                f"cannot hold; save it yourself and pass it as metadata"
            )


def _checked_path(path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"`path` must be a string or a path, got {type(path).__name__}")
    return Path(path)


def _checked_module(argument: str, value: object) -> nn.Module:
    if not isinstance(value, nn.Module):
        raise TypeError(f"`{argument}` must be a torch.nn.Module, got {type(value).__name__}")
    return value
