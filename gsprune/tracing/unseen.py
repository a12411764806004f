"""Parts of a model that the example never ran: heads of other tasks, critics, branches, early exits.

Submodules and bare parameters are parts. An unused part counts as unseen if another call of the model probably runs it:

- it has a gradient,
- another element of its list ran,
- a sibling that makes an output of the network has one of its input widths, or
- it is a value head: a child of the network whose last weight has one row.

Other unused parts count as dead code. An unseen part probably reads a tensor that its siblings read or make. Such
tensors keep their channels if the first weights of the part fit their width. At any other width the part would fail
with an error.
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

__all__ = ["protect_unseen", "unseen_parts"]

_LISTS = (nn.ModuleList, nn.ModuleDict)


def unseen_parts(tape: Tape, model: nn.Module) -> list[str]:
    """Names of the unused parts that another call probably runs; outermost ones only."""
    if len(tape.used) == len(tape.shapes):
        return []
    found: list[str] = []
    for name, module in model.named_modules():
        if not name or any(name.startswith(f"{outer}.") for outer in found):
            continue
        if _is_run(tape, model, name) is False and (_has_gradient(module) or _is_head(tape, model, name)):
            found.append(name)
    return found + _unseen_parameters(tape, model)


def _is_run(tape: Tape, model: nn.Module, name: str) -> bool | None:
    """True if the traced call has used a parameter of a submodule; None if it has no parameters."""
    leaves = [_joined(name, leaf) for leaf, _ in model.get_submodule(name).named_parameters()]
    return any(tape.is_used(leaf) for leaf in leaves) if leaves else None


def _joined(owner: str, leaf: str) -> str:
    return f"{owner}.{leaf}" if owner else leaf


def _has_gradient(module: nn.Module) -> bool:
    return any(parameter.grad is not None for parameter in module.parameters())


def _is_head(tape: Tape, model: nn.Module, name: str) -> bool:
    """True if an unused submodule is like a sibling that ran, or is a value head."""
    around, _, leaf = name.rpartition(".")
    owner, module = model.get_submodule(around), model.get_submodule(name)
    if isinstance(owner, _LISTS):
        return any(_is_run(tape, model, _joined(around, other)) for other, _ in owner.named_children())
    weights = [parameter for parameter in module.parameters() if _is_weight(parameter)]
    if weights and not around and weights[-1].shape[0] == 1:
        return True
    if isinstance(module, nn.ModuleList):  # mostly a stack of layers or experts that the configuration leaves out
        return False
    widths = _input_sizes(module)
    return any(
        other != leaf
        and _is_run(tape, model, _joined(around, other))
        # Unused norms and other vectors are mostly dead code. So they need a sibling of their class.
        and (_reads(sibling, widths) if weights else type(sibling) is type(module) and _input_sizes(sibling) == widths)
        and _makes_outputs(tape, _joined(around, other))
        for other, sibling in owner.named_children()
    )


def _unseen_parameters(tape: Tape, model: nn.Module) -> list[str]:
    """Names of unused weights in modules that ran: those with a gradient, or with a width that an output's layer reads.

    Vectors are left out: most of them are scales, tokens or deviations of distributions.
    """
    found: list[str] = []
    for name, module in model.named_modules():
        own = {_joined(name, leaf): each for leaf, each in module._parameters.items() if each is not None}
        unused = {leaf: each for leaf, each in own.items() if not tape.is_used(leaf) and _is_weight(each)}
        if not unused or not _is_run(tape, model, name):
            continue
        makers = [each for leaf, each in module.named_children() if _makes_outputs(tape, _joined(name, leaf))]
        for leaf, weight in unused.items():
            is_read = len(weight) > 1 and any(_reads(maker, frozenset(weight.shape)) for maker in makers)
            if weight.grad is not None or is_read:
                found.append(leaf)
    return found


def _is_weight(parameter: Tensor) -> bool:
    """True for weights of layers; False for the parameters of norms, and for vectors with leading axes of size 1."""
    return parameter.ndim > 1 and parameter.shape[1] > 1


def _reads(module: nn.Module, widths: frozenset[int]) -> bool:
    return not _input_sizes(module).isdisjoint(widths)


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
    """Protect the channels that unseen parts may read. `run` calls the model under the tracer once more.

    Returns:
        names of the parts that may read channels, or whose inputs are unknown.
    """
    fitting: dict[str, bool] = {}  # unseen part -> True if it may read channels
    parameters = dict(model.named_parameters())
    with ExitStack() as stack:
        for name in names:
            is_bare = name in parameters
            sizes = frozenset(parameters[name].shape) if is_bare else _input_sizes(model.get_submodule(name))

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
    """Protect the channels of a tensor that a part can read; None if it cannot, False if there are no channels."""
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
    """Widths that a module may read: the input widths of its weights that no earlier weight of it makes.

    The elements of a list are independent.
    """
    if isinstance(module, _LISTS):
        return frozenset().union(*map(_input_sizes, module.children()))
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
