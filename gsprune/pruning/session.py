"""What is known of a model when a step begins: the traced state, and what this process has looked up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gsprune.rewrite.binding import Binding
from gsprune.rewrite.session import Session, session_of
from gsprune.rewrite.tensors import canonical_tensors
from gsprune.tracing.example import Example, given, is_same_call
from gsprune.tracing.graph import Graph, Group
from gsprune.tracing.structure import Structure
from gsprune.tracing.tracer import trace as trace_model
from gsprune.tracing.tracer import trace_call

__all__ = ["Known", "cached_lookup", "open_session"]


@dataclass(frozen=True, slots=True)
class Known:
    """What one process has looked up about a model; lives in `Session.cache`."""

    binding: Binding
    parameters: tuple[str, ...]
    first: Tensor

    @property
    def device(self) -> torch.device:
        """Where the network is now; moving a module leaves its tensors the same objects."""
        return self.first.device


def open_session(
    model: nn.Module,
    example_inputs: Any,
    forward: Callable[..., Any] | None,
    copies: Mapping[str, str] = MappingProxyType({}),
) -> Session:
    """The model's state, traced if it never was or if its tensors have changed since; the model is not touched.

    Args:
        model: the network.
        example_inputs: a newly given example, which replaces the one known; or None. Of another size it is traced.
        forward: the same for its call.
        copies: {copy: original}, submodules that the user ties; ties that are new trace the network again.

    Returns:
        the state, with what an earlier step looked up only where that still holds.

    Raises:
        ValueError: a copy and its original have lost different channels.
    """
    state = _with_copies(session_of(model), copies)
    if state is None:
        graph, example = trace_model(model, example_inputs, forward, copies)
        return Session(Structure.of(graph), example, {group.name: group.width for group in graph.groups})
    if state.structure is not None:
        copies = {**state.structure.traced.copies, **copies}
    if state.cache is not None and not _holds(model, state.cache):
        state = replace(state, cache=None)
    is_made = state.structure is not None and state.structure.traced.example_origin == "made"
    call = _next_call(state.example, example_inputs, forward)
    if state.structure is not None and _is_current(model, state):
        if call is state.example:
            return state
        keeps_origin = example_inputs is None or not is_made
        if keeps_origin and call is not None and state.example is not None and is_same_call(call, state.example):
            return replace(state, example=replace(call, autocast=state.example.autocast))
        # Costs depend on the call. The groups that are known stay, unless the new call ties more.
        groups = state.structure.graph.groups
        state = replace(state, structure=None, known_groups=groups, kept_before=state.kept, cache=None)
    if call is None or (is_made and example_inputs is None):
        graph, example = trace_model(model, None, forward or (call.forward if call is not None else None), copies)
    else:
        graph, example = trace_call(model, call, copies)
    graph, refused = _with_known_groups(graph, state)
    widths = {group.name: max(group.width, state.initial_widths.get(group.name, 0)) for group in graph.groups}
    return replace(
        state,
        structure=Structure.of(graph),
        example=example,
        initial_widths=widths,
        kept_before=_fitting(state.kept, graph.shapes),
        verified=frozenset(),
        refused={**state.refused, **refused},
        cache=None,
    )


def _next_call(known: Example | None, example_inputs: Any, forward: Callable[..., Any] | None) -> Example | None:
    """The call of this step: new inputs go through the known `forward`, a new `forward` gets the known inputs."""
    if known is None:
        return None if example_inputs is None else given(example_inputs, forward)
    if example_inputs is None:
        return (
            known if forward is None else replace(given(known.kwargs or known.args, forward), autocast=known.autocast)
        )
    return replace(given(example_inputs, known.forward if forward is None else forward), autocast=known.autocast)


def _with_copies(state: Session | None, copies: Mapping[str, str]) -> Session | None:
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


def _with_known_groups(graph: Graph, state: Session) -> tuple[Graph, dict[str, str]]:
    """`graph` with the groups that a file or an earlier call told of, unless the network has changed since.

    Returns:
        the graph, and group name -> reason for groups that must stay: the new call does not reach all that they run
        through, but ties other tensors to them.
    """
    lengths = {
        (member.tensor, member.axis): len(member.units) for group in state.known_groups for member in group.members
    }
    fits = all(graph.shapes.get(tensor, ())[axis : axis + 1] == (size,) for (tensor, axis), size in lengths.items())
    if state.structure is not None or not fits or _is_same_partition(graph.groups, state.known_groups):
        return graph, {}
    known = [_axes(group) for group in state.known_groups]
    if known and all(any(_axes(group) <= axes for axes in known) for group in graph.groups):
        ran = [member.tensor for group in state.known_groups for member in group.members]
        unseen = tuple(name for name in graph.unseen if not any(tensor.startswith(f"{name}.") for tensor in ran))
        # The units of known groups are numbered as the traced ones.
        return replace(graph, groups=state.known_groups, trail=(), unseen=unseen), {}
    partly = {
        group.name: "an earlier example ties it to tensors that the present one does not reach"
        for group in graph.groups
        if any(axes & _axes(group) and not axes <= _axes(group) for axes in known)
    }
    return graph, partly


def _axes(group: Group) -> frozenset[tuple[str, int]]:
    return frozenset((member.tensor, member.axis) for member in group.members)


def _is_same_partition(first: Sequence[Group], second: Sequence[Group]) -> bool:
    """True if two traces found the same groups, unit for unit."""
    return len(first) == len(second) and all(
        a.name == b.name
        and len(a.members) == len(b.members)
        and all(
            (m.tensor, m.axis) == (n.tensor, n.axis) and np.array_equal(m.units, n.units)
            for m, n in zip(a.members, b.members, strict=True)
        )
        for a, b in zip(first, second, strict=True)
    )


def _fitting(kept: Mapping[str, Mapping[int, Any]], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[int, Any]]:
    """`kept` without tensors that the user has replaced since."""
    return {
        name: dict(axes)
        for name, axes in kept.items()
        if name in shapes and all(len(index) == shapes[name][axis] for axis, index in axes.items())
    }


def _is_current(model: nn.Module, state: Session) -> bool:
    """Whether the structure still describes the model."""
    if state.cache is not None:
        return True
    assert state.structure is not None
    shapes = {name: tuple(tensor.shape) for name, tensor in canonical_tensors(model).items()}
    return shapes == state.structure.graph.shapes


def _holds(model: nn.Module, cache: object) -> bool:
    """Whether what an earlier step looked up is of this model, and the user has not put other parameters in place."""
    return isinstance(cache, Known) and cache.binding.module is model and cache.binding.is_valid()


def cached_lookup(model: nn.Module, state: Session) -> Known:
    """Tensors, modules and their relation to the structure; of an earlier step where `open_session` let it stand.

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
