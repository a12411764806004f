"""Compares a checkpoint with the model and the optimizers that it is loaded into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from gsprune.checkpoint.record import Record, persistent_names
from gsprune.errors import CheckpointError
from gsprune.rewrite.tensors import aliases_of

__all__ = ["check_architecture", "check_optimizers"]


def check_architecture(record: Record, module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Compare a file with a model; return True if the model is dense and must shrink to the file's widths.

    Raises:
        CheckpointError: they differ. The message names the first difference.
    """
    for name in [*record.layout, *persistent_names(module, tensors)]:
        if name not in tensors:
            raise _difference(record, f"the file has {name!r}, but the model does not")
        if name not in record.layout:
            raise _difference(record, f"the model has {name!r}, but the file does not")
    aliases = aliases_of(module)
    for name in [*record.aliases, *aliases]:
        if record.aliases.get(name) != aliases.get(name):
            where = "file" if name in record.aliases else "model"
            raise _difference(record, f"in the {where} {name!r} is tied to another tensor")
    for name, (_, dtype) in record.layout.items():
        if str(tensors[name].dtype) != dtype:
            raise _difference(record, f"{name!r} is {dtype} in the file and {tensors[name].dtype} in the model")
    shapes = {name: tuple(tensors[name].shape) for name in record.layout}
    if all(shape == record.layout[name][0] for name, shape in shapes.items()):
        return False
    for name, shape in shapes.items():
        small, dense = record.layout[name][0], record.dense_shape(name)
        if shape != dense:
            widths = f"{dense}" if small == dense else f"{dense} (pruned to {small})"
            raise _difference(record, f"{name!r} has shape {widths} in the file and {shape} in the model")
    return True


def check_optimizers(record: Record, optimizers: Sequence[Optimizer]) -> None:
    """Compare the optimizers of a file with those of the caller, unless the caller has none.

    Raises:
        CheckpointError: their number, a type or the sizes of parameter groups differ.
    """
    if optimizers and len(optimizers) != len(record.optimizers):
        raise CheckpointError(
            f"{record.path} holds {len(record.optimizers)} optimizers, got {len(optimizers)}; pass as many as were"
            " saved"
        )
    for each, state in zip(optimizers, record.optimizers, strict=False):
        if type(each).__name__ != state["type"]:
            raise CheckpointError(f"{record.path} holds the state of {state['type']}, got a {type(each).__name__}")
        sizes = [len(group["params"]) for group in each.param_groups]
        # A wrapper's state may have other entries; its `load_state_dict` checks them.
        saved_groups = state["state"].get("param_groups")
        saved_sizes = sizes if saved_groups is None else [len(group["params"]) for group in saved_groups]
        if sizes != saved_sizes:
            raise CheckpointError(
                f"{record.path} holds a {state['type']} with parameter groups of {saved_sizes} parameters, got "
                f"groups of {sizes}"
            )


def _difference(record: Record, text: str) -> CheckpointError:
    return CheckpointError(
        f"{record.path} holds another architecture: {text}; load it into a freshly built model of the saved"
        " architecture"
    )
