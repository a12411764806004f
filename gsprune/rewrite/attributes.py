"""Integers that modules store about their tensors' shapes and that follow a rewrite.

Torch's own layers by a table; of other modules those attributes whose name says what they are (``in_features``,
``out_channels``, ...). Integers that only user code knows are found by `gsprune.rewrite.stored_sizes`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from gsprune.rewrite.tensors import owner_of

__all__ = ["Shape", "attribute_entries"]

Shape = tuple[int, ...]
_Shapes = Mapping[str, tuple[Shape, Shape]]  # the module's own tensors: local name -> (shape before, shape after)

# Names under which user modules (NoisyLinear, masked convolutions, ...) keep the two sides of their weight.
_OUT_NAMES = ("out_features", "out_channels", "out_dim", "num_features", "num_parameters")
_IN_NAMES = ("in_features", "in_channels", "in_dim")

# Where torch.nn.utils.parametrize keeps the tensors behind `layer.weight`.
_PARAMETRIZATION = re.compile(r"(?:(?P<layer>.*)\.)?parametrizations\.(?P<tensor>[^.]+)")


def attribute_entries(
    module_of: Mapping[str, nn.Module], before: Mapping[str, Shape], after: Mapping[str, Shape]
) -> list[tuple[dict[str, Any], str, Any]]:
    """The attributes that change with the shapes.

    Args:
        module_of: module name -> module.
        before: shapes of all tensors by name.
        after: the same after the rewrite.

    Returns:
        (``__dict__`` of the module, attribute, new value) for each attribute that changes.
    """
    touched: dict[str, dict[str, tuple[Shape, Shape]]] = {}
    for name, shape in before.items():
        if after[name] != shape:
            touched.setdefault(owner_of(name), {})
    for name, shape in before.items():
        owner = owner_of(name)
        if owner in touched:
            touched[owner][name.rpartition(".")[2]] = (shape, after[name])
    entries = []
    for owner, shapes in touched.items():
        module, shapes = _seen_through_parametrization(owner, module_of, shapes)
        for attribute, value in _updates(module, shapes):
            if attribute in module.__dict__ and module.__dict__[attribute] != value:
                entries.append((module.__dict__, attribute, value))
    return entries


def _seen_through_parametrization(
    owner: str, module_of: Mapping[str, nn.Module], shapes: dict[str, tuple[Shape, Shape]]
) -> tuple[nn.Module, _Shapes]:
    """The layer that the tensors serve, with a reparametrized weight under the name it stands for."""
    match = _PARAMETRIZATION.fullmatch(owner)
    if match is not None:
        # Of several originals (weight_norm's magnitude and direction) the largest has the weight's shape.
        widest = max(shapes.values(), key=lambda pair: (len(pair[0]), prod(pair[0])))
        return module_of[match["layer"] or ""], {match["tensor"]: widest}
    for source in ("weight_v", "weight_orig"):  # the older, hook-based weight_norm and spectral_norm
        if source in shapes:
            return module_of[owner], {**shapes, "weight": shapes[source]}
    return module_of[owner], shapes


def _conv(module: _ConvNd, shapes: _Shapes) -> Iterable[tuple[str, int]]:
    if "weight" not in shapes:
        return
    before, after = shapes["weight"]
    # A transposed convolution's weight is (in, out / groups, ...), the other's (out, in / groups, ...).
    whole, per_group = (
        ("in_channels", "out_channels") if isinstance(module, _ConvTransposeNd) else ("out_channels", "in_channels")
    )
    groups = module.groups
    if groups > 1 and before[1] == 1:
        groups = after[0] // (before[0] // groups)  # depthwise: groups go, their size stays
    yield whole, after[0]
    yield per_group, after[1] * groups
    yield "groups", groups


def _linear(module: nn.Linear, shapes: _Shapes) -> Iterable[tuple[str, int]]:
    if "weight" in shapes:
        yield "out_features", shapes["weight"][1][0]
        yield "in_features", shapes["weight"][1][1]


def _bilinear(module: nn.Bilinear, shapes: _Shapes) -> Iterable[tuple[str, int]]:
    if "weight" in shapes:
        yield from zip(("out_features", "in1_features", "in2_features"), shapes["weight"][1], strict=True)


def _norm(module: _NormBase, shapes: _Shapes) -> Iterable[tuple[str, int]]:
    for name in ("weight", "bias", "running_mean"):
        if name in shapes:
            yield "num_features", shapes[name][1][0]
            return


def _layer_norm(module: nn.LayerNorm | nn.RMSNorm, shapes: _Shapes) -> Iterable[tuple[str, Shape]]:
    if "weight" in shapes:
        yield "normalized_shape", shapes["weight"][1]


def _group_norm(module: nn.GroupNorm, shapes: _Shapes) -> Iterable[tuple[str, int]]:
    if "weight" in shapes:
        yield "num_channels", shapes["weight"][1][0]


def _embedding(module: nn.Embedding | nn.EmbeddingBag, shapes: _Shapes) -> Iterable[tuple[str, int]]:
    if "weight" in shapes:
        yield "num_embeddings", shapes["weight"][1][0]
        yield "embedding_dim", shapes["weight"][1][1]


def _prelu(module: nn.PReLU, shapes: _Shapes) -> Iterable[tuple[str, int]]:
    if "weight" in shapes:
        yield "num_parameters", shapes["weight"][1][0]


def _attention(module: nn.MultiheadAttention, shapes: _Shapes) -> Iterable[tuple[str, int]]:
    if "in_proj_weight" in shapes:
        rows, columns = shapes["in_proj_weight"][1]
        yield "embed_dim", columns
        yield "kdim", columns
        yield "vdim", columns
        yield "head_dim", rows // 3 // module.num_heads
    elif "q_proj_weight" in shapes:
        rows, columns = shapes["q_proj_weight"][1]
        yield "embed_dim", columns
        yield "kdim", shapes["k_proj_weight"][1][1]
        yield "vdim", shapes["v_proj_weight"][1][1]
        yield "head_dim", rows // module.num_heads


# Gate blocks per hidden unit in `weight_hh`.
_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def _rnn(module: nn.RNNBase, shapes: _Shapes) -> Iterable[tuple[str, int]]:
    if "weight_hh_l0" not in shapes:
        return
    rows, columns = shapes["weight_hh_l0"][1]
    yield "input_size", shapes["weight_ih_l0"][1][1]
    yield "hidden_size", rows // _GATES[module.mode]
    if module.proj_size > 0:
        yield "proj_size", columns


def _rnn_cell(module: nn.RNNCellBase, shapes: _Shapes) -> Iterable[tuple[str, int]]:
    if "weight_hh" in shapes:
        yield "input_size", shapes["weight_ih"][1][1]
        yield "hidden_size", shapes["weight_hh"][1][1]


def _by_name(module: nn.Module, shapes: _Shapes) -> Iterable[tuple[str, int]]:
    """Of a module that torch does not know: a well-known name that held the old length of its side."""
    for before, after in shapes.values():
        sides = [(_OUT_NAMES, 0), *([(_IN_NAMES, 1)] if len(before) > 1 else [])]
        for names, axis in sides:
            for name in names:
                if before[axis] != after[axis] and module.__dict__.get(name) == before[axis]:
                    yield name, after[axis]


_TABLE: tuple[tuple[type | tuple[type, ...], Callable[[Any, _Shapes], Iterable[tuple[str, Any]]]], ...] = (
    (_ConvNd, _conv),
    (nn.Linear, _linear),
    (nn.Bilinear, _bilinear),
    (_NormBase, _norm),
    ((nn.LayerNorm, nn.RMSNorm), _layer_norm),
    (nn.GroupNorm, _group_norm),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    (nn.PReLU, _prelu),
    (nn.MultiheadAttention, _attention),
    (nn.RNNBase, _rnn),
    (nn.RNNCellBase, _rnn_cell),
    (nn.Module, _by_name),
)


def _updates(module: nn.Module, shapes: _Shapes) -> Iterable[tuple[str, Any]]:
    for kind, rule in _TABLE:
        if isinstance(module, kind):
            return rule(module, shapes)
    raise AssertionError("the table ends with nn.Module")
