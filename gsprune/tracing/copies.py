"""Copies inside a model that must stay in step with another part of it: momentum encoders, mean teachers, target nets.

The user's code mixes such a pair parameter by parameter, so both must lose the same channels. A copy shares the units
of its original and does not count in their scores, as a follower of the whole model does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from gsprune.tracing.graph import Graph, layer_of
from gsprune.tracing.names import named_tensors
from gsprune.tracing.shadow import Labels
from gsprune.tracing.tape import Tape

__all__ = ["frozen_copies", "has_structure", "possible_originals", "tie_copies", "untied_twins"]

_MIN_LAYERS = 2  # one layer of the same shape as another is no evidence of a copy
_MIN_COSINE = 0.3  # independent weights have about 0, with noise in small layers; averages of the original about 1

Shapes = Mapping[str, tuple[int, ...]]
Signature = tuple[object, ...]


def frozen_copies(model: nn.Module) -> dict[str, str]:
    """Submodules without gradient that are copies of trainable ones, by name: {copy: original}; outermost ones only.

    A copy has the classes, tensor names and shapes of its original, at least two layers, and weights that are equal or
    similar to the original's. Repeated blocks have unrelated weights.
    """
    found: dict[str, str] = {}
    for copy, originals in _candidates(model).items():
        if any(_is_inside(copy, outer) for outer in found):
            continue
        cosines = {name: _cosine(model.get_submodule(copy), model.get_submodule(name)) for name in originals}
        best = max(cosines, key=lambda name: cosines[name])
        if cosines[best] >= _MIN_COSINE:
            found[copy] = best
    return found


def possible_originals(model: nn.Module, copy: str) -> list[str]:
    """Names of the submodules with the structure of `copy`; if some have similar weights, only those."""
    equal = [name for name, _ in model.named_modules() if name and has_structure(model, copy, name)]
    module = model.get_submodule(copy)
    return [name for name in equal if _cosine(module, model.get_submodule(name)) >= _MIN_COSINE] or equal


def has_structure(model: nn.Module, copy: str, original: str) -> bool:
    """True if two submodules have the same classes, tensor names and shapes, and none is inside the other."""
    apart = not (_is_inside(copy, original) or _is_inside(original, copy))
    first, second = (model.get_submodule(name) for name in (copy, original))
    return apart and _structure(first, _shapes(first)) == _structure(second, _shapes(second))


def untied_twins(model: nn.Module, graph: Graph) -> tuple[tuple[str, str], ...]:
    """Pairs of submodules of equal structure that are not tied although the user's code may mix their weights.

    Elements of one list of layers do not count, and neither do tied copies. The shapes are those of `graph`, from
    before a step.
    """
    shapes = {**graph.shapes, **{alias: graph.shapes[name] for alias, name in graph.aliases.items()}}
    pairs: list[tuple[str, str]] = []
    for equal in _by_signature(model, shapes).values():
        names = [name for name in equal if not any(_is_inside(name, copy) for copy in graph.copies)]
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                nested = any(_is_inside(first, a) and _is_inside(second, b) for a, b in pairs)
                if not nested and not _share_list(model, first, second):
                    pairs.append((first, second))
    return tuple(pairs)


def tie_copies(tape: Tape, model: nn.Module, copies: Mapping[str, str]) -> None:
    """Unite the channels of every copy with those of its original, whether or not the traced call runs both."""
    for copy, original in copies.items():
        tape.op = f"{copy} is a copy of {original}"
        to_original, to_copy = (np.arange(tape.num_atoms, dtype=np.int32) for _ in range(2))
        for leaf in named_tensors(model.get_submodule(copy)):
            mine, other = (tape.canonical(name) for name in (f"{copy}.{leaf}", f"{original}.{leaf}"))
            if mine == other:
                continue
            if mine in tape.used or other in tape.used:
                tape.used |= {mine, other}
            for axis, size in enumerate(tape.shapes[mine]):
                if size > 1:
                    a, b = tape.labels(mine, axis), tape.labels(other, axis)
                    tape.unite(a, b)
                    to_original[a], to_copy[b] = b, a
        # The original opens the channels, so the group has its name.
        opened = [_mapped(to_original, layer) for layer in tape.openings]
        tape.openings = [*opened, *_changed(to_copy, opened)]
        tape.inputs += [*_changed(to_original, tape.inputs), *_changed(to_copy, tape.inputs)]
        tape.queries += [*_changed(to_original, tape.queries), *_changed(to_copy, tape.queries)]
        tape.biases += [(_mapped(to_copy, result), _mapped(to_copy, bias)) for result, bias in tape.biases]


def _mapped(atoms: Labels, layer: Labels) -> Labels:
    """A layer with every atom replaced; fixed and flexible labels stay."""
    replaced: Labels = np.where(layer > 0, atoms[np.maximum(layer, 0)], layer)
    return replaced


def _changed(atoms: Labels, layers: Iterable[Labels]) -> list[Labels]:
    return [new for layer in layers if not np.array_equal(new := _mapped(atoms, layer), layer)]


def _shapes(module: nn.Module) -> Shapes:
    """The present shapes of a module's tensors, by name."""
    return {name: tuple(tensor.shape) for name, tensor in named_tensors(module).items()}


def _structure(module: nn.Module, shapes: Shapes) -> Signature:
    """The classes, tensor names and `shapes` of a module, which it has in common with its copies."""
    kinds = [(name, type(part)) for name, part in module.named_modules(remove_duplicate=False)]
    return (*kinds, *sorted(shapes.items()))


def _has_layers(module: nn.Module) -> bool:
    """True if the module has enough layers for equal structure to mean something."""
    owners = {layer_of(name) for name, tensor in named_tensors(module).items() if tensor.ndim > 1}
    return len(owners) >= _MIN_LAYERS


def _by_signature(model: nn.Module, shapes: Shapes) -> dict[Signature, list[str]]:
    """{structure: names of the submodules that have it, the outer ones first}, for structures that occur twice.

    `shapes` replaces the present shapes of the model's tensors.
    """
    found: dict[Signature, list[str]] = {}
    for name, module in model.named_modules():
        if name and _has_layers(module):
            own = {leaf: shapes.get(f"{name}.{leaf}", shape) for leaf, shape in _shapes(module).items()}
            found.setdefault(_structure(module, own), []).append(name)
    return {signature: names for signature, names in found.items() if len(names) > 1}


def _candidates(model: nn.Module) -> dict[str, list[str]]:
    """Frozen submodules, the outer ones first -> trainable submodules of the same structure."""
    found: dict[str, list[str]] = {}
    averaged = any(isinstance(module, AveragedModel) for module in model.modules())
    if not averaged and all(tensor.requires_grad for tensor in named_tensors(model).values() if tensor.ndim > 1):
        return found
    for names in _by_signature(model, {}).values():
        frozen = [name for name in names if _is_frozen(model, name)]
        trainable = [name for name in names if name not in frozen]
        if trainable:
            found |= {name: trainable for name in frozen}
    return dict(sorted(found.items(), key=lambda item: item[0].count(".")))


def _is_frozen(model: nn.Module, name: str) -> bool:
    """True if the submodule gets no gradient."""
    if any(isinstance(module, AveragedModel) for module in _around(model, name)):
        return True
    return not any(tensor.requires_grad for tensor in named_tensors(model.get_submodule(name)).values())


def _around(model: nn.Module, name: str) -> list[nn.Module]:
    """The modules around a submodule, outermost first."""
    parts = name.split(".")
    return [model.get_submodule(".".join(parts[:end])) for end in range(len(parts))]


def _share_list(model: nn.Module, first: str, second: str) -> bool:
    """True if both are, or are in, elements of one list of layers; a dictionary's elements have roles."""
    a, b = first.split("."), second.split(".")
    common = next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    owner = model.get_submodule(".".join(a[:common]))
    return isinstance(owner, nn.Sequential | nn.ModuleList)


def _is_inside(name: str, outer: str) -> bool:
    return name == outer or name.startswith(f"{outer}.")


@torch.no_grad()
def _cosine(a: nn.Module, b: nn.Module) -> float:
    """Cosine between all weights of two modules of equal structure; 0 for zeros and meta tensors."""
    others = named_tensors(b)
    product, norm_a, norm_b = 0.0, 0.0, 0.0
    for name, tensor in named_tensors(a).items():
        if tensor.ndim > 1 and tensor.is_floating_point() and not (tensor.is_meta or others[name].is_meta):
            x, y = (each.detach().to(tensor.device, torch.float64).flatten() for each in (tensor, others[name]))
            product += float(x @ y)
            norm_a += float(x @ x)
            norm_b += float(y @ y)
    return product / (norm_a * norm_b) ** 0.5 if norm_a and norm_b else 0.0
