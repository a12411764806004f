"""Opens the session of a model at the start of a step: traces the model if needed, and looks up its tensors once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import nn

from gsprune.rewrite.binding import Binding
from gsprune.rewrite.followers import matched_tensors
from gsprune.rewrite.session import Session, session_of
from gsprune.rewrite.tensors import canonical_tensors
from gsprune.tracing.example import Example, as_example, is_same_call
from gsprune.tracing.graph import Graph, Group
from gsprune.tracing.originals import note_written, writable_tensors
from gsprune.tracing.structure import Structure
from gsprune.tracing.tracer import trace as trace_model
from gsprune.tracing.tracer import trace_call

__all__ = ["follower_bindings", "open_session", "with_binding"]


def open_session(
    model: nn.Module,
    example_inputs: Any,
    forward: Callable[..., Any] | None,
    copies: Mapping[str, str] = MappingProxyType({}),
) -> Session:
    """The session of a model, which is traced if it never was, or if submodules or shapes of tensors have changed.

    The model is not changed. A new example or `forward` replaces the session's. `copies` is {copy: original}, parts
    that the user ties. The model is traced again for inputs of another size and for new ties. An invalid binding is
    dropped.

    Raises:
        ValueError: a copy and its original have lost different channels.
    """
    session = _with_copies(session_of(model), copies)
    if session is None:
        graph, example = trace_model(model, example_inputs, forward, copies)
        return Session(Structure(graph), example, {group.name: group.width for group in graph.groups})
    if session.structure is not None:
        copies = {**session.structure.traced.copies, **copies}
    is_bound = session.binding is not None and session.binding.module is model and session.binding.is_valid()
    is_current = is_bound or _is_current(model, session)
    if not is_bound:
        session = replace(session, binding=None)
    is_made = session.structure is not None and session.structure.traced.example_origin == "made"
    call = _next_call(session.example, example_inputs, forward)
    if session.structure is not None and is_current:
        if call is session.example:
            return session
        keeps_origin = example_inputs is None or not is_made
        if keeps_origin and call is not None and session.example is not None and is_same_call(call, session.example):
            return replace(session, example=replace(call, autocast=session.example.autocast))
        # Trace again, because costs depend on the call. The earlier groups are kept, unless the new call ties more.
        groups = session.structure.graph.groups
        session = replace(session, structure=None, recorded_groups=groups, kept_before=session.kept, binding=None)
    if call is None or (is_made and example_inputs is None):
        graph, example = trace_model(model, None, forward or (call.forward if call is not None else None), copies)
    else:
        graph, example = trace_call(model, call, copies)
    graph, refused = _with_recorded_groups(graph, session)
    return replace(
        session,
        structure=Structure(graph),
        example=example,
        initial_widths={g.name: max(g.width, session.initial_widths.get(g.name, 0)) for g in graph.groups},
        kept_before=_fitting(session.kept, graph.shapes),
        verified=frozenset(),
        **_stored_integers(model, session),
        refused={**session.refused, **refused},
        binding=None,
    )


def with_binding(model: nn.Module, session: Session) -> Session:
    """The session with a binding, which has the model's tensors and modules.

    Raises:
        ValueError: the model has no tensors.
        RewriteError: a tensor cannot be changed in place.
    """
    written = session.groups.traced.written
    if written:  # the model may be a copy, or have a new tensor in an attribute
        tensors = writable_tensors(model)
        note_written([tensors[name] for name in written if name in tensors])
    if session.binding is not None:
        return session
    if not canonical_tensors(model):
        raise ValueError("`model` has no parameters and no buffers: there is nothing to prune")
    return replace(session, binding=Binding(model, session.groups))


def follower_bindings(session: Session, followers: Sequence[nn.Module]) -> list[Binding]:
    """The bindings of the followers.

    Raises:
        ValueError: a follower has another structure than the model.
        RewriteError: a tensor cannot be changed in place.
    """
    if not followers:
        return []
    graph = session.groups.graph
    return [
        Binding(follower, session.groups, matched_tensors(follower, index, graph.shapes, graph.aliases))
        for index, follower in enumerate(followers)
    ]


def _next_call(previous: Example | None, example_inputs: Any, forward: Callable[..., Any] | None) -> Example | None:
    """The call of this step. Inputs or a `forward` that are not passed are those of the previous call."""
    if previous is None:
        return None if example_inputs is None else as_example(example_inputs, forward)
    if example_inputs is None and forward is None:
        return previous
    inputs = (previous.kwargs or previous.args) if example_inputs is None else example_inputs
    return replace(as_example(inputs, previous.forward if forward is None else forward), autocast=previous.autocast)


def _with_copies(session: Session | None, copies: Mapping[str, str]) -> Session | None:
    """`session`, without its structure if it was traced without one of the ties, so that it will be traced again."""
    if session is None or session.structure is None or copies.items() <= session.structure.traced.copies.items():
        return session
    kept = session.kept
    for copy, original in copies.items():
        for name, axes in kept.items():
            for a, b in ((copy, original), (original, copy)):
                leaf = name.removeprefix(f"{a}.")
                if leaf != name and not _keeps_same(axes, kept.get(f"{b}.{leaf}", {})):
                    raise ValueError(
                        f"`followers` names {copy!r}, which must have lost the channels that {original!r} has lost, but"
                        " an earlier step pruned them apart: name it from the first step on, or copy the weights of"
                        f" {original!r} into a network pruned from the start"
                    )
    return replace(session, structure=None, recorded_groups=(), kept_before=kept, binding=None)


def _keeps_same(axes: Mapping[int, Any], others: Mapping[int, Any]) -> bool:
    return axes.keys() == others.keys() and all(np.array_equal(axes[axis], others[axis]) for axis in axes)


def _with_recorded_groups(graph: Graph, session: Session) -> tuple[Graph, dict[str, str]]:
    """`graph` with the groups of a checkpoint or an earlier call, unless the network has changed since.

    Returns:
        the graph, and group name -> reason for groups that must keep their width: the new call does not reach all of
        their tensors, but ties other tensors to them.
    """
    recorded = session.recorded_groups
    lengths = {(member.tensor, member.axis): len(member.units) for group in recorded for member in group.members}
    fits = all(graph.shapes.get(tensor, ())[axis : axis + 1] == (size,) for (tensor, axis), size in lengths.items())
    if session.structure is not None or not fits or _partition(graph.groups) == _partition(recorded):
        return graph, {}
    axes_of_recorded = [_axes(group) for group in recorded]
    if recorded and all(any(_axes(group) <= axes for axes in axes_of_recorded) for group in graph.groups):
        ran = [tensor for tensor, _ in lengths]
        unseen = tuple(name for name in graph.unseen if not any(tensor.startswith(f"{name}.") for tensor in ran))
        # Recorded and traced groups number their units in the same way.
        return replace(graph, groups=recorded, trail=(), unseen=unseen), {}
    partly = {
        group.name: "an earlier example ties it to tensors that the present one does not reach"
        for group in graph.groups
        if any(axes & _axes(group) and not axes <= _axes(group) for axes in axes_of_recorded)
    }
    return graph, partly


def _axes(group: Group) -> frozenset[tuple[str, int]]:
    return frozenset((member.tensor, member.axis) for member in group.members)


def _partition(groups: Sequence[Group]) -> list[Any]:
    """The groups with all their units, for comparisons."""
    return [(group.name, [(m.tensor, m.axis, m.units.tolist()) for m in group.members]) for group in groups]


def _fitting(kept: Mapping[str, Mapping[int, Any]], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[int, Any]]:
    """`kept` without tensors that the user has replaced since."""
    return {
        name: dict(axes)
        for name, axes in kept.items()
        if name in shapes and all(shapes[name][axis : axis + 1] == (len(index),) for axis, index in axes.items())
    }


def _stored_integers(model: nn.Module, session: Session) -> dict[str, Any]:
    """Links and attributes of the session that the model still has. The user may have replaced or removed a module."""
    if not session.links and not session.attributes:
        return {}
    present = {name: vars(module) for name, module in model.named_modules(remove_duplicate=False)}
    return {
        "links": tuple(link for link in session.links if link.attribute in present.get(link.module, ())),
        "attributes": {
            name: {attribute: value for attribute, value in values.items() if attribute in present[name]}
            for name, values in session.attributes.items()
            if name in present
        },
    }


def _is_current(model: nn.Module, session: Session) -> bool:
    """True if the structure still describes the model, whose binding is invalid."""
    if session.structure is None or (session.binding is not None and not session.binding.has_submodules()):
        return False
    shapes = {name: tuple(tensor.shape) for name, tensor in canonical_tensors(model).items()}
    return shapes == session.structure.graph.shapes
