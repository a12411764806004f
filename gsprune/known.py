"""What is known of a model when a step begins: the traced state, and what this process has looked up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gsprune.rewrite.binding import Binding
from gsprune.rewrite.state import Example, PruneState, state_of
from gsprune.rewrite.tensors import canonical_tensors
from gsprune.tracing.example import given
from gsprune.tracing.graph import Graph
from gsprune.tracing.outputs import tensors_in
from gsprune.tracing.structure import Structure
from gsprune.tracing.tracer import trace as trace_model

__all__ = ["Known", "known_state", "looked_up"]


@dataclass(frozen=True, slots=True)
class Known:
    """What one process has looked up about a model; lives in `PruneState.cache`."""

    binding: Binding
    parameters: tuple[str, ...]
    first: Tensor

    @property
    def device(self) -> torch.device:
        """Where the network is now; moving a module leaves its tensors the same objects."""
        return self.first.device


def known_state(
    model: nn.Module,
    example_inputs: Any,
    forward: Callable[..., Any] | None,
    copies: Mapping[str, str] = MappingProxyType({}),
) -> PruneState:
    """The model's state, traced if it never was or if its tensors have changed since; the model is not touched.

    Args:
        model: the network.
        example_inputs: a new example, which replaces the stored one; None keeps the stored one.
        forward: a new call for the example; None keeps the stored one.
        copies: {copy: original}, submodules that the user ties; ties that are new trace the network again.

    Returns:
        the state, with what an earlier step looked up only where that still holds.

    Raises:
        ValueError: a copy and its original have lost different channels.
    """
    state = _with_copies(state_of(model), copies)
    if state is not None and state.structure is not None:
        copies = {**state.structure.traced.copies, **copies}
    if state is not None and state.cache is not None and not _holds(model, state.cache):
        state = replace(state, cache=None)
    stored = None if state is None else state.example
    inputs = example_inputs
    if stored is not None:
        inputs = stored.kwargs or stored.args if inputs is None else inputs
        forward = stored.forward if forward is None else forward
    if state is not None and state.structure is not None and _is_current(model, state):
        if inputs is None or (example_inputs is None and stored is not None and forward is stored.forward):
            return state
        example = given(inputs, forward)
        if stored is not None:
            example = replace(example, autocast=stored.autocast)
        if example_inputs is None or not _has_other_costs(state.structure.traced, example):
            return replace(state, example=example)
        state = replace(
            state, structure=None, known_groups=state.structure.graph.groups, kept_before=state.kept, cache=None
        )
    graph, example = trace_model(model, inputs, forward, copies)
    if state is None:
        return PruneState(Structure.of(graph), example, {group.name: group.width for group in graph.groups})
    graph = _with_known_groups(graph, state)
    widths = {group.name: max(group.width, state.initial_widths.get(group.name, 0)) for group in graph.groups}
    return replace(
        state,
        structure=Structure.of(graph),
        example=example,
        initial_widths=widths,
        kept_before=_fitting(state.kept, graph.shapes),
        verified=frozenset(),
        cache=None,
    )


def _has_other_costs(graph: Graph, example: Example) -> bool:
    """True if the graph's MACs are not those of the example: it was traced on a made-up input, or at another size.

    MACs are per item of the first axis, so its size does not matter. Ties do not depend on the example.
    """
    sizes = [tuple(tensor.shape[1:]) for tensor in tensors_in((example.args, example.kwargs))]
    return graph.example_origin == "made" or sizes != [shape[1:] for shape in graph.example_shapes]


def _with_copies(state: PruneState | None, copies: Mapping[str, str]) -> PruneState | None:
    """`state`, to be traced anew where it was traced without one of the ties."""
    if state is None or state.structure is None or copies.items() <= state.structure.traced.copies.items():
        return state
    kept = state.kept
    for copy, original in copies.items():
        for name, axes in kept.items():
            for a, b in ((copy, original), (original, copy)):
                leaf = name.removeprefix(f"{a}.")
                if leaf != name and not _keeps_alike(axes, kept.get(f"{b}.{leaf}", {})):
                    raise ValueError(
                        f"`followers` names {copy!r}, which must have lost the channels that {original!r} has lost, but"
                        " an earlier step pruned them apart: name it from the first step on, or copy the weights of"
                        f" {original!r} into a network pruned from the start"
                    )
    return replace(state, structure=None, known_groups=(), kept_before=kept, cache=None)


def _keeps_alike(axes: Mapping[int, Any], others: Mapping[int, Any]) -> bool:
    return axes.keys() == others.keys() and all(np.array_equal(axes[axis], others[axis]) for axis in axes)


def _with_known_groups(graph: Graph, state: PruneState) -> Graph:
    """`graph` with the groups that a file told of, unless the network has changed since it was loaded."""
    known = {
        (member.tensor, member.axis): len(member.units) for group in state.known_groups for member in group.members
    }
    traced = {(member.tensor, member.axis) for group in graph.groups for member in group.members}
    fits = all(graph.shapes.get(tensor, ())[axis : axis + 1] == (size,) for (tensor, axis), size in known.items())
    if state.structure is not None or not known or not fits or not traced <= known.keys():
        return graph
    return replace(graph, groups=state.known_groups, trail=())  # whose units are numbered as the traced ones


def _fitting(kept: Mapping[str, Mapping[int, Any]], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[int, Any]]:
    """`kept` without tensors that the user has replaced since."""
    return {
        name: dict(axes)
        for name, axes in kept.items()
        if name in shapes and all(len(index) == shapes[name][axis] for axis, index in axes.items())
    }


def _is_current(model: nn.Module, state: PruneState) -> bool:
    """Whether the structure still describes the model."""
    if state.cache is not None:
        return True
    assert state.structure is not None
    shapes = {name: tuple(tensor.shape) for name, tensor in canonical_tensors(model).items()}
    return shapes == state.structure.graph.shapes


def _holds(model: nn.Module, cache: object) -> bool:
    """Whether what an earlier step looked up is of this model, and the user has not put other parameters in place."""
    return isinstance(cache, Known) and cache.binding.module is model and cache.binding.is_valid()


def looked_up(model: nn.Module, state: PruneState) -> Known:
    """Tensors, modules and their relation to the structure; of an earlier step where `known_state` let it stand.

    Raises:
        ValueError: there are no tensors.
    """
    if isinstance(state.cache, Known):
        return state.cache
    assert state.structure is not None
    parameters = dict(model.named_parameters())
    tensors = canonical_tensors(model)
    if not tensors:
        raise ValueError("`model` has no parameters and no buffers: there is nothing to prune")
    return Known(Binding(model, state.structure), tuple(parameters), next(iter(tensors.values())))
