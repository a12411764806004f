"""Integers that modules store about their tensors' shapes and that follow a rewrite.

The integers of torch's own layers are in tables. In other modules, attributes with common names (``in_features``,
``out_channels``, ...) are found. `gsprune.rewrite.repair` finds integers with other names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from gsprune.tracing.graph import layer_of

__all__ = [
    "Entry",
    "IntegerKey",
    "Shape",
    "SizeLink",
    "integer_entries",
    "is_in_table",
    "link_entries",
    "links_of",
    "links_of_copies",
    "lost_link",
    "stored_value",
    "with_element",
]

Shape = tuple[int, ...]
Entry = tuple[dict[Any, Any], Any, Any]
IntegerKey = tuple[str, str, int | None]  # module, attribute, index within a tuple or list
_Shapes = Mapping[str, Shape]  # the module's own tensors: local name -> shape
# (attribute, index or None, local tensor name, axis, multiplier, divisor)
_Rule = tuple[str, int | None, str, int, int, int]

# Common attributes of user modules (NoisyLinear, masked convolutions, ...) with the two sides of their weight.
_OUT_NAMES = ("out_features", "out_channels", "out_dim", "num_features", "num_parameters")
_IN_NAMES = ("in_features", "in_channels", "in_dim")

# torch.nn.utils.parametrize keeps the tensors behind `layer.weight` here.
_PARAMETRIZATION = re.compile(r"(?:(?P<layer>.*)\.)?parametrizations\.[^.]+")


@dataclass(frozen=True, slots=True)
class SizeLink:
    """A stored integer that follows an axis: ``attribute = length of the axis * multiplier // divisor``.

    Attributes:
        module: name of the module that stores it.
        attribute: name of the attribute.
        index: position within a tuple or list, None for a plain integer.
        tensor: name of the parameter or buffer, or of a group's units (`gsprune.rewrite.length_changes.lengths_of`).
        axis: its axis.
        multiplier: number of groups if the axis has the channels of one group; number of outputs per input if the axis
            has a depthwise convolution's inputs; else 1.
        divisor: number of heads, gates or groups if the integer is the size of one, else 1.
    """

    module: str
    attribute: str
    index: int | None
    tensor: str
    axis: int
    multiplier: int = 1
    divisor: int = 1

    @property
    def key(self) -> IntegerKey:
        """The stored integer."""
        return self.module, self.attribute, self.index

    def value(self, length: int) -> int:
        """The integer for a length of the axis."""
        return length * self.multiplier // self.divisor


def links_of(
    module_of: Mapping[str, nn.Module],
    shapes: Mapping[str, Shape],
    touched: Mapping[str, Collection[int]],
    aliases: Mapping[str, str],
) -> tuple[SizeLink, ...]:
    """Links of all stored integers in torch's layers, and of those with common names in other modules.

    An attribute whose present value is not the length of its axis means something else, and has no link.

    `shapes` has all parameters and buffers, `touched` the axes of those that pruning may cut, by canonical name.
    `aliases` maps other names of tied tensors to canonical names.
    """
    canonical_of = {**{name: name for name in shapes}, **aliases}
    names_of_owner: dict[str, dict[str, str]] = {}
    for name, canonical in canonical_of.items():
        names_of_owner.setdefault(layer_of(name), {})[name.rpartition(".")[2]] = canonical
    links = []
    for owner, names in names_of_owner.items():
        if not touched.keys().isdisjoint(names.values()):
            layer, local = _parametrized_layer(owner, names, shapes)
            module = module_of.get(layer)
            if module is None:  # the follower is a container of tensors
                continue
            for attribute, index, tensor, axis, multiplier, divisor in _rules(
                module, {k: shapes[v] for k, v in local.items()}, touched.get(local.get("weight", ""), ())
            ):
                link = SizeLink(layer, attribute, index, local[tensor], axis, multiplier, divisor)
                if stored_value(module, link) == link.value(shapes[link.tensor][axis]) and link.tensor in touched:
                    links.append(link)
    return tuple(links)


def link_entries(
    module_of: Mapping[str, nn.Module], links: Sequence[SizeLink], shapes: Mapping[str, Shape]
) -> list[Entry]:
    """Entries that set linked integers by the shapes after the rewrite; only those that change.

    Links to groups that no longer exist, and links of modules that a follower lacks, are skipped.
    """
    values = {link.key: link.value(shapes[link.tensor][link.axis]) for link in links if link.tensor in shapes}
    return integer_entries(module_of, {key: value for key, value in values.items() if key[0] in module_of})


def integer_entries(module_of: Mapping[str, nn.Module], values: Mapping[IntegerKey, Any]) -> list[Entry]:
    """Entries that set stored integers; only those that change. Elements of one tuple or list change together."""
    changed: dict[tuple[str, str], Any] = {}
    for (module, attribute, index), value in values.items():
        present = changed.get((module, attribute), module_of[module].__dict__[attribute])
        changed[module, attribute] = value if index is None else with_element(present, index, value)
    return [
        (module_of[module].__dict__, attribute, value)
        for (module, attribute), value in changed.items()
        if module_of[module].__dict__[attribute] != value
    ]


def links_of_copies(link: SizeLink, copies: Mapping[str, str]) -> list[SizeLink]:
    """The links of the same integer in copies of a submodule, and in its original; `copies` is {copy: original}.

    They follow the same tensor, because a copy loses the channels of its original.
    """
    pairs = [*copies.items(), *((original, copy) for copy, original in copies.items())]
    return [
        replace(link, module=other + link.module[len(owner) :])
        for other, owner in pairs
        if link.module == owner or link.module.startswith(f"{owner}.")
    ]


def lost_link(before: Sequence[SizeLink], after: Sequence[SizeLink]) -> bool:
    """True if a stored integer had a link and has none now: which length it follows is unknown until that changes."""
    return not {link.key for link in before} <= {link.key for link in after}


def stored_value(module: nn.Module, link: SizeLink) -> Any:
    """The present integer of a link; None if the module has no such attribute."""
    value = module.__dict__.get(link.attribute)
    if link.index is None or value is None:
        return value
    return value[link.index]


def with_element(values: Any, index: int, element: int) -> Any:
    """A copy of a tuple, list or torch.Size with one element changed."""
    return type(values)([*values[:index], element, *values[index + 1 :]])


def _parametrized_layer(
    owner: str, names: Mapping[str, str], shapes: Mapping[str, Shape]
) -> tuple[str, dict[str, str]]:
    """The layer that owns the tensors, and its tensors, in which a reparametrized weight has the weight's name."""
    match = _PARAMETRIZATION.fullmatch(owner)
    if match is not None:
        # The largest of several originals (weight_norm's magnitude and direction) has the weight's shape.
        widest = max(names.values(), key=lambda name: (len(shapes[name]), prod(shapes[name])))
        return match["layer"] or "", {owner.rpartition(".")[2]: widest}
    # The older, hook-based spectral_norm, which has a vector of the name weight_v too, and weight_norm.
    for source in ("weight_orig", "weight_v"):
        if source in names:
            return owner, {**names, "weight": names[source]}
    return owner, dict(names)


def _conv(module: _ConvNd, shapes: _Shapes, touched: Collection[int]) -> Iterable[_Rule]:
    # A transposed convolution's weight is (in, out / groups, ...), the other's (out, in / groups, ...).
    is_transposed = isinstance(module, _ConvTransposeNd)
    whole, part = ("in_channels", "out_channels") if is_transposed else ("out_channels", "in_channels")
    length, per_group = shapes["weight"][:2]
    yield whole, None, "weight", 0, 1, 1
    # Groups of a depthwise convolution are removed, and their size stays. Those of a grouped convolution stay, also
    # when pruning has left one input per group.
    has_one_input = length == module.groups if is_transposed else per_group == 1
    if module.groups > 1 and has_one_input and 1 not in touched:
        yield part, None, "weight", 0, per_group, length // module.groups
        yield "groups", None, "weight", 0, 1, length // module.groups
    else:
        yield part, None, "weight", 1, module.groups, 1


def _layer_norm(module: nn.LayerNorm | nn.RMSNorm, shapes: _Shapes) -> Iterable[_Rule]:
    for axis in range(len(shapes["weight"])):
        yield "normalized_shape", axis, "weight", axis, 1, 1


def _attention(module: nn.MultiheadAttention, shapes: _Shapes) -> Iterable[_Rule]:
    if "in_proj_weight" in shapes:
        for name in ("embed_dim", "kdim", "vdim"):
            yield name, None, "in_proj_weight", 1, 1, 1
        yield "head_dim", None, "in_proj_weight", 0, 1, 3 * module.num_heads
    else:
        yield "embed_dim", None, "q_proj_weight", 1, 1, 1
        yield "kdim", None, "k_proj_weight", 1, 1, 1
        yield "vdim", None, "v_proj_weight", 1, 1, 1
        yield "head_dim", None, "q_proj_weight", 0, 1, module.num_heads


# Gate blocks per hidden unit in `weight_hh`.
_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def _rnn(module: nn.RNNBase, shapes: _Shapes) -> Iterable[_Rule]:
    yield "input_size", None, "weight_ih_l0", 1, 1, 1
    yield "hidden_size", None, "weight_ih_l0", 0, 1, _GATES[module.mode]
    if module.proj_size > 0:
        yield "proj_size", None, "weight_hh_l0", 1, 1, 1


def _by_name(module: nn.Module, shapes: _Shapes) -> Iterable[_Rule]:
    """Rules for other modules: a well-known name whose value is the length of its side."""
    for tensor, shape in shapes.items():
        for names, axis in ((_OUT_NAMES, 0), (_IN_NAMES, 1)):
            for name in names:
                if axis < len(shape) and module.__dict__.get(name) == shape[axis]:
                    yield name, None, tensor, axis, 1, 1


# Layer -> (attribute, tensor, axis). The first row whose tensor the layer has counts, and only if the attribute is the
# length of the axis: a group norm's `num_groups` follows only if each channel is a group.
_ROWS: dict[type, tuple[tuple[str, str, int], ...]] = {
    nn.Linear: (("out_features", "weight", 0), ("in_features", "weight", 1)),
    nn.Bilinear: (("out_features", "weight", 0), ("in1_features", "weight", 1), ("in2_features", "weight", 2)),
    _NormBase: tuple(("num_features", tensor, 0) for tensor in ("weight", "bias", "running_mean")),
    nn.GroupNorm: (("num_channels", "weight", 0), ("num_groups", "weight", 0)),
    nn.Embedding: (("num_embeddings", "weight", 0), ("embedding_dim", "weight", 1)),
    nn.EmbeddingBag: (("num_embeddings", "weight", 0), ("embedding_dim", "weight", 1)),
    nn.PReLU: (("num_parameters", "weight", 0),),
    nn.RNNCellBase: (("input_size", "weight_ih", 1), ("hidden_size", "weight_hh", 1)),
}

# Layers with other rules, and a tensor that they must have for the rule to apply.
_RULES: dict[type, tuple[tuple[str, ...], Callable[[Any, _Shapes], Iterable[_Rule]]]] = {
    nn.LayerNorm: (("weight",), _layer_norm),
    nn.RMSNorm: (("weight",), _layer_norm),
    nn.MultiheadAttention: (("in_proj_weight", "q_proj_weight"), _attention),
    nn.RNNBase: (("weight_ih_l0",), _rnn),
}
_KINDS = (*_ROWS, *_RULES, _ConvNd)


def is_in_table(module: nn.Module) -> bool:
    """True if all integers that the module stores follow its own tensors, by the tables."""
    has_tensors = any(tensor is not None for tensor in (*module._parameters.values(), *module._buffers.values()))
    return (has_tensors or hasattr(module, "parametrizations")) and isinstance(module, _KINDS)


def _rules(module: nn.Module, shapes: _Shapes, touched: Collection[int]) -> Iterable[_Rule]:
    """Rules for a module; `touched` are the axes of its weight that pruning may cut."""
    if isinstance(module, _ConvNd):
        return _conv(module, shapes, touched) if "weight" in shapes else ()
    kind = next((kind for kind in _KINDS if isinstance(module, kind)), None)
    if kind is None:
        return _by_name(module, shapes)
    if kind in _RULES:
        tensors, rule = _RULES[kind]
        return rule(module, shapes) if any(name in shapes for name in tensors) else ()
    rows = {attribute: (tensor, axis) for attribute, tensor, axis in reversed(_ROWS[kind]) if tensor in shapes}
    return [(attribute, None, tensor, axis, 1, 1) for attribute, (tensor, axis) in rows.items()]
