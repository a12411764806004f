"""Parts of a model that the example never ran: heads of other tasks, branches, early exits.

A part counts as unseen if a sibling ran: another element of its list, or a module of the same class and input width
that makes an output of the network. Other unused layers count as dead code. An unseen part probably reads a tensor that
its siblings read or make. Such tensors keep their channels if the first weights of the part fit their width. At any
other width the part would fail with an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from math import prod
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from gsprune.tracing.outputs import tensors_in
from gsprune.tracing.shadow import varying
from gsprune.tracing.tape import OUTPUT, Tape

__all__ = ["protect_unseen", "unseen_modules"]

_LISTS = (nn.ModuleList, nn.ModuleDict)


def unseen_modules(tape: Tape, model: nn.Module) -> list[str]:
    """Names of the submodules that the traced call has not run, but a sibling of them; outermost ones only."""
    if len(tape.used) == len(tape.shapes):
        return []
    found: list[str] = []
    for name, module in model.named_modules():
        if not name or isinstance(module, _LISTS) or any(name.startswith(f"{outer}.") for outer in found):
            continue
        if _is_run(tape, model, name) is False and _has_run_sibling(tape, model, name):
            found.append(name)
    return found


def _is_run(tape: Tape, model: nn.Module, name: str) -> bool | None:
    """True if the traced call has used a parameter of a submodule; None if it has no parameters."""
    leaves = [f"{name}.{leaf}" for leaf, _ in model.get_submodule(name).named_parameters()]
    return any(tape.canonical(leaf) in tape.used for leaf in leaves) if leaves else None


def _has_run_sibling(tape: Tape, model: nn.Module, name: str) -> bool:
    around, _, leaf = name.rpartition(".")
    owner, module = model.get_submodule(around), model.get_submodule(name)
    return any(
        other != leaf
        and _is_run(tape, model, full := f"{around}.{other}" if around else other)
        and (isinstance(owner, _LISTS) or (_reads_alike(sibling, module) and _makes_outputs(tape, full)))
        for other, sibling in owner.named_children()
    )


def _reads_alike(sibling: nn.Module, module: nn.Module) -> bool:
    return type(sibling) is type(module) and _input_sizes(sibling) == _input_sizes(module)


def _makes_outputs(tape: Tape, name: str) -> bool:
    """True if a weight of this submodule makes an output of the network.

    A single output (a value) has no labels. So every direct child of the network with a weight of one row counts.
    """
    made = np.zeros(tape.num_atoms, bool)
    for labels, reason in tape.protections:
        if reason.startswith(OUTPUT):
            made[labels[labels > 0]] = True
    own = [axis for axis in tape.axes if axis.tensor.startswith(f"{name}.")]
    is_value = "." not in name and any(axis.axis == 0 and axis.size == 1 for axis in own)
    return is_value or any(made[axis.first : axis.first + axis.size].any() for axis in own)


def protect_unseen(tape: Tape, model: nn.Module, names: Sequence[str], run: Callable[[], Any]) -> tuple[str, ...]:
    """Protect the channels that unseen modules may read. `run` calls the model under the tracer once more.

    Returns:
        names of the modules that may read channels, or whose inputs are unknown.
    """
    fitting: dict[str, bool] = {}  # unseen module -> True if it may read channels
    with ExitStack() as stack:
        for name in names:
            sizes = _input_sizes(model.get_submodule(name))

            def note(
                module: nn.Module, inputs: Any, output: Any, name: str = name, sizes: frozenset[int] = sizes
            ) -> None:
                del module
                for tensor in tensors_in((inputs, output)):
                    fits = _protect_fitting(tape, tensor, name, sizes)
                    if fits is not None:
                        fitting[name] = fits or fitting.get(name, False)

            for neighbour in _neighbours(model, name):
                stack.callback(neighbour.register_forward_hook(note).remove)
        run()
    return tuple(name for name in names if fitting.get(name, True))


def _protect_fitting(tape: Tape, tensor: Tensor, name: str, sizes: frozenset[int]) -> bool | None:
    """Protect the channels of a tensor that a module can read; None if it cannot, False if there are no channels."""
    shape = tuple(tensor.shape)
    whole = any(prod(shape[axis:]) in sizes for axis in range(1, len(shape)))  # also flattened
    layers = tape.of(tensor).layers
    found = [layer for layer in layers if whole or any(shape[axis] in sizes for axis in varying(layer))]
    for layer in found:
        tape.protect(layer, f"{name} was not run by the example and may read them")
    return True if found else False if whole or not sizes.isdisjoint(shape[1:]) else None


def _neighbours(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """The children of the innermost module around `name` that is no list, and the elements of its lists.

    A model that is a list has no neighbours: the user's `forward` calls its elements.
    """
    if isinstance(model, _LISTS):
        return
    parts = name.split(".")
    path = [".".join(parts[:end]) for end in range(len(parts))]
    around = next(each for each in reversed(path) if not each or not isinstance(model.get_submodule(each), _LISTS))
    pending = [(around, model.get_submodule(around))]
    while pending:
        prefix, module = pending.pop()
        for leaf, child in module.named_children():
            full = f"{prefix}.{leaf}" if prefix else leaf
            if isinstance(child, _LISTS):
                pending.append((full, child))
            else:
                yield child


def _input_sizes(module: nn.Module) -> frozenset[int]:
    """Widths that a module may read: the input widths of its weights that no earlier weight of it makes."""
    sizes: set[int] = set()
    made: set[int] = set()
    for layer in module.modules():
        own = [tensor for tensor in layer._parameters.values() if tensor is not None]
        weights = [tensor for tensor in own if tensor.ndim > 1]
        for tensor in weights or own:
            sizes |= _read_by(layer, tensor) - made
        made |= {tensor.shape[0] for tensor in weights}
    return frozenset(sizes)


def _read_by(layer: nn.Module, weight: Tensor) -> set[int]:
    if weight.ndim < 2 or isinstance(layer, _ConvTransposeNd):
        return set(weight.shape[:1])
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        return set()
    return {weight.shape[1] * (layer.groups if isinstance(layer, _ConvNd) else 1)}
