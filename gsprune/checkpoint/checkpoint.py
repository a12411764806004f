"""Saves a network with its optimizer and pruning state, and loads it into a dense network.

A file has the tensors at their present widths, the kept indices in the dense numbering, the first-seen widths, and the
stored sizes in user code that were adjusted. So a newly built dense model can load it. The model is then as small as
the saved one, and further steps prune it as they would have pruned the saved one.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from gsprune.checkpoint.architecture import check_architecture, check_optimizers
from gsprune.checkpoint.document import write_document
from gsprune.checkpoint.record import document_of, read_record
from gsprune.errors import PruneWarning
from gsprune.interrupts import PostponedInterrupts
from gsprune.rewrite.optimizers.wrappers import as_optimizers, with_inner
from gsprune.rewrite.recorded_widths import rewrite_to
from gsprune.rewrite.session import SESSION_ATTRIBUTE, session_of
from gsprune.rewrite.tensors import canonical_tensors, unwrapped
from gsprune.rewrite.transaction import Transaction

__all__ = ["load", "save"]


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    **metadata: Any,
) -> None:
    """Write a network, dense or pruned, to one file: safetensors with JSON in its header, no pickle.

    The write is atomic: after a crash the old file or the complete new one exists. Tied tensors are written once.
    Buffers that are not part of the ``state_dict`` are not written. A `PruneWarning` names a part of the network that
    was pruned on its own, because a dense network cannot load such a file: pass the module that was pruned.

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
    _warn_of_pruned_parts(module)
    write_document(file, document_of(module, optimizers, metadata))


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
        RewriteError: `into` must shrink, but a parameter is in shared memory or a part of a larger tensor, or has a
            sparse gradient.
        TypeError: `into` is not a module, or `path` is no path.
    """
    module = unwrapped(_checked_module("into", into))
    optimizers = as_optimizers(optimizer, ("state_dict", "load_state_dict"))
    file = _checked_path(path)
    record = read_record(file)
    tensors = canonical_tensors(module)
    must_shrink = check_architecture(record, module, tensors)
    check_optimizers(record, optimizers)
    torch.clear_autocast_cache()  # an autocast block around this call would use cast copies of the old weights
    with PostponedInterrupts(), Transaction() as transaction:
        if must_shrink:
            rewrite_to(module, record.session, transaction)
        contents = [tensor.to(tensors[name].device) for name, tensor in record.tensors.items()]
        transaction.swap([tensors[name] for name in record.tensors], contents)
        # Setting the present values makes the transaction remember them. A wrapper's `state` may be a property that
        # reads the optimizer inside, so the attributes of both are remembered.
        attributes = [vars(each) for each in with_inner(optimizers) if hasattr(each, "__dict__")]
        transaction.set_entries([(values, key, value) for values in attributes for key, value in values.items()])
        for each, saved in zip(optimizers, record.optimizers, strict=False):
            each.load_state_dict(saved["state"])
        before = session_of(module)
        session = record.session if before is None else replace(record.session, example=before.example)
        transaction.set_entries([(module.__dict__, SESSION_ATTRIBUTE, session)])
    return record.metadata


def _refuse_extra_state(module: nn.Module) -> None:
    for name, owner in module.named_modules():
        if type(owner).get_extra_state is not nn.Module.get_extra_state:
            raise TypeError(
                f"module {name or type(owner).__name__!r} has an extra state (get_extra_state), which gsprune.save "
                f"cannot hold; save it yourself and pass it as metadata"
            )


def _warn_of_pruned_parts(module: nn.Module) -> None:
    """Warn of a submodule whose pruning record the file will lack."""
    for name, part in module.named_modules():
        own = session_of(part) if name else None
        if own is not None and own.kept:
            warnings.warn(
                f"{name!r} was pruned on its own, so the file has its widths but not its pruning record, and a dense"
                f" {type(module).__name__} cannot load it: save the module that was passed to prune_step",
                PruneWarning,
                stacklevel=3,
            )
            return


def _checked_path(path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"`path` must be a string or a path, got {type(path).__name__}")
    return Path(path)


def _checked_module(argument: str, value: object) -> nn.Module:
    if not isinstance(value, nn.Module):
        raise TypeError(f"`{argument}` must be a torch.nn.Module, got {type(value).__name__}")
    return value
