"""One pruning step from request to report: trace, score, choose, rewrite, check, keep or take back."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from gsprune.backends import Backend, BackendName, get_backend
from gsprune.errors import PruneWarning, RewriteError
from gsprune.importance import Importance
from gsprune.ignore import ignored_groups
from gsprune.prune_report import GroupChange, PruneReport
from gsprune.rewrite.apply import apply_plan, sliced
from gsprune.rewrite.check import Failure, mismatch, run
from gsprune.rewrite.masking import masked_output
from gsprune.rewrite.optimizer_state import check_ownership
from gsprune.rewrite.plan import RewritePlan, Subject, plan_rewrite, subjects_of
from gsprune.rewrite.rescale import rescaled
from gsprune.rewrite.state import STATE_ATTRIBUTE, PruneState, SizeLink, state_of
from gsprune.rewrite.stored_sizes import changed_lengths, link_entries, repaired
from gsprune.rewrite.tensors import canonical_tensors
from gsprune.rewrite.transaction import Transaction
from gsprune.selection import Scope, Target, dense_shapes, group_layers, select
from gsprune.tracing import trace as trace_model
from gsprune.tracing.example import given
from gsprune.tracing.graph import Graph, Group, IntArray, Protected
from gsprune.tracing.undisturbed import undisturbed

__all__ = ["Request", "known_state", "take_step"]

# Forwards that one step may spend on checks before it gives up (DESIGN: at most 20).
MAX_FORWARDS = 20

Removed = dict[str, dict[int, IntArray]]


@dataclass(frozen=True, slots=True)
class Request:
    """The options of one step; the meaning of each is in `gsprune.prune_step`."""

    sparsity: float | Mapping[str, float]
    importance: Importance
    scope: Scope
    target: Target
    ignore: Sequence[str | nn.Module | type]
    round_to: int | Mapping[str, int]
    min_channels: int | Mapping[str, int]
    rescale: bool
    backend: BackendName
    dry_run: bool


class _Refused(Exception):
    """The rewritten network failed its check; carries what the next plan must leave alone."""

    def __init__(self, failure: Failure, groups: Collection[str]) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.groups = groups


def known_state(model: nn.Module, example_inputs: Any, forward: Callable[..., Any] | None) -> PruneState:
    """The model's state, traced if it never was or if its tensors have changed since.

    Args:
        model: the network.
        example_inputs: a newly given example, which replaces the one known; or None.
        forward: the same for its call.
    """
    state = state_of(model)
    if state is not None and state.graph is not None and _shapes_of(model) == state.graph.shapes:
        if example_inputs is not None:
            state.example = given(example_inputs, forward)
        elif forward is not None and state.example is not None:
            state.example = replace(state.example, forward=forward)
        return state
    if state is not None and state.example is not None and example_inputs is None:
        inputs = state.example.kwargs or state.example.args
        graph, example = trace_model(model, inputs, forward or state.example.forward)
    else:
        graph, example = trace_model(model, example_inputs, forward)
    before = state.initial_widths if state is not None else {}
    widths = {group.name: max(group.width, before.get(group.name, 0)) for group in graph.groups}
    if state is None:
        return PruneState(graph, example, widths)
    return replace(state, graph=graph, example=example, initial_widths=widths, verified=False)


def _shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in canonical_tensors(model).items()}


class Step:
    """One step on one model; `take` does it.

    Args:
        model: the network.
        state: what is known of it.
        request: the options.
        optimizers: whose states follow.
        followers: modules that follow.
    """

    def __init__(
        self,
        model: nn.Module,
        state: PruneState,
        request: Request,
        optimizers: Sequence[Optimizer],
        followers: Sequence[nn.Module],
    ) -> None:
        assert state.graph is not None
        self.model = model
        self.state = state
        self.graph = state.graph
        self.request = request
        self.optimizers = optimizers
        self.followers = followers
        self.subjects = subjects_of(model, followers, self.graph.shapes, self.graph.aliases)
        self.tensors = self.subjects[0].tensors
        check_ownership(optimizers, (model, *followers))
        self.ignored = ignored_groups(model, self.graph, request.ignore)
        self.forwards = 0
        self.notes: tuple[str, ...] = ()

    def take(self) -> PruneReport:
        """Choose, rewrite, check; returns the report."""
        started = time.perf_counter()
        backend = get_backend(self.request.backend, _device_of(self.tensors))
        refused = dict(self.state.refused)
        while True:
            removed_units = self._choose(backend, self.ignored | set(refused))
            if not removed_units or self.request.dry_run:
                break
            try:
                self._rewrite(removed_units, refused, backend)
            except _Refused as refusal:
                self._learn(refusal, refused)
                continue
            break
        if not removed_units:
            self._warn_if_stuck(refused)
        if not removed_units or self.request.dry_run:
            self.model.__dict__[STATE_ATTRIBUTE] = self.state  # so that the next step need not trace
        return self._report(removed_units, refused, time.perf_counter() - started)

    def _choose(self, backend: Backend, frozen: Collection[str]) -> dict[str, IntArray]:
        """The units to remove by group; empty where there is nothing to do."""
        example = self.state.example
        scores = self.request.importance.scores(
            self.graph,
            self.tensors,
            backend,
            frozen=frozen,
            model=self.model,
            run=None if example is None else example.call,
        )
        chosen = select(
            self.graph,
            scores,
            self.state.initial_widths,
            self.request.sparsity,
            scope=self.request.scope,
            target=self.request.target,
            round_to=self.request.round_to,
            min_channels=self.request.min_channels,
            backend=backend,
            frozen=frozenset(frozen),
            parameters=[name for name, _ in self.model.named_parameters()],
        )
        return {name: units for name, units in chosen.items() if len(units)}

    def _rewrite(self, removed_units: Mapping[str, IntArray], refused: Mapping[str, str], backend: Backend) -> None:
        """Rewrite everything in one transaction; raises `_Refused` where the check fails, with all taken back."""
        removed = self.graph.removed(removed_units)
        plan = plan_rewrite(self.subjects, self.graph.shapes, self.graph.aliases, removed, self.optimizers)
        modules = [dict(subject.module.named_modules(remove_duplicate=False)) for subject in self.subjects]
        linked = [entry for names in modules for entry in link_entries(names, self.state.links, plan.shapes)]
        must_check = not self.state.verified or bool(linked)
        expected = self._expected(removed) if must_check and not self.state.verified else None
        replacements = sliced(plan, backend)
        others = rescaled(plan, replacements, self.graph, removed, self.tensors) if self.request.rescale else []
        with Transaction() as transaction:
            apply_plan(transaction, plan, replacements)
            transaction.swap([bias for bias, _ in others], [replacement for _, replacement in others])
            transaction.set_entries(linked)
            links = self.state.links
            if must_check:
                links = (*links, *self._check(transaction, plan, removed_units, expected))
                fresh = links[len(self.state.links) :]
                transaction.set_entries([e for names in modules[1:] for e in link_entries(names, fresh, plan.shapes)])
            self._keep(transaction, removed_units, removed, refused, links, modules[0])
        self.notes = plan.notes

    def _expected(self, removed: Removed) -> Any:
        """The masked dense network's output, where the sliced one must equal it; None where no comparison is exact."""
        if self.state.example is None or self.graph.inexact or self.request.rescale:
            return None
        self.forwards += 1
        with undisturbed(self.model):
            return masked_output(self.model, self.state.example, self.tensors, removed)

    def _check(
        self, transaction: Transaction, plan: RewritePlan, removed_units: Mapping[str, IntArray], expected: Any
    ) -> tuple[SizeLink, ...]:
        """Run the rewritten network; finds stored sizes where it fails. Returns new links or raises `_Refused`."""
        example = self.state.example
        if example is None:
            raise RewriteError(
                "the rewritten network must be checked by a forward, but its example is not known (it was pickled with a"
                " custom `forward`, or loaded); nothing was changed. Pass `example_inputs=` and `forward=` once more"
            )
        self.forwards += 1
        outcome = run(self.model, example)
        links: tuple[SizeLink, ...] = ()
        operations = outcome.operations
        if outcome.failure is not None:
            lengths = changed_lengths(self.graph, plan.shapes)
            links, outcome, used = repaired(
                self.model, example, lengths, transaction, MAX_FORWARDS - self.forwards
            )
            self.forwards += used
            operations = outcome.operations
        failure = outcome.failure
        if failure is None and expected is not None:
            difference = mismatch(outcome.output, expected)
            if difference is not None:
                failure = Failure(difference, None, ())
        if failure is not None:
            raise _Refused(failure, self._groups_before(operations, failure, removed_units))
        return links

    def _groups_before(
        self, operations: int, failure: Failure, removed_units: Mapping[str, IntArray]
    ) -> Collection[str]:
        """Groups among `removed_units` that pass through the last traced operation before the failure."""
        if failure.error is None:
            return ()
        for index in range(min(operations, len(self.graph.trail)), 0, -1):
            passing = [name for name in self.graph.trail[index - 1] if name in removed_units]
            if passing:
                return passing
        return ()

    def _learn(self, refusal: _Refused, refused: dict[str, str]) -> None:
        """Protect what stood in the way, or give up."""
        where = f" in {type(refusal.failure.modules[-1]).__name__}" if refusal.failure.modules else ""
        if not refusal.groups or self.forwards >= MAX_FORWARDS:
            raise RewriteError(
                f"the smaller network failed its check{where}: {refusal.failure.message}; nothing was changed. Keep the"
                " widths that its code relies on with `ignore=`, or report the network"
            ) from refusal.failure.error
        for name in refusal.groups:
            refused[name] = f"a size written into the code{where}: {refusal.failure.message}"

    def _keep(
        self,
        transaction: Transaction,
        removed_units: Mapping[str, IntArray],
        removed: Removed,
        refused: Mapping[str, str],
        links: tuple[SizeLink, ...],
        modules: Mapping[str, nn.Module],
    ) -> None:
        """Let the new state live with the model and its followers."""
        attributes: dict[str, dict[str, Any]] = {}
        for link in links:
            attributes.setdefault(link.module, {})[link.attribute] = modules[link.module].__dict__[link.attribute]
        after = replace(
            self.state,
            graph=self.graph.pruned(removed_units),
            kept=_composed(self.state.kept, self.graph.shapes, removed),
            attributes=attributes or self.state.attributes,
            links=links,
            verified=True,
            refused=dict(refused),
        )
        followers = [
            (subject.module.__dict__, STATE_ATTRIBUTE, replace(after, example=None)) for subject in self.subjects[1:]
        ]
        transaction.set_entries([(self.model.__dict__, STATE_ATTRIBUTE, after), *followers])

    def _warn_if_stuck(self, refused: Mapping[str, str]) -> None:
        """Say once per cause that a request cannot be met because nothing at all can be removed."""
        open_groups = [g for g in self.graph.groups if g.name not in self.ignored and g.name not in refused]
        asked = self.request.sparsity
        wanted = max(asked.values(), default=0.0) if isinstance(asked, Mapping) else asked
        if open_groups or wanted <= 0:
            return
        if not self.graph.groups:
            reasons = "; ".join(f"{', '.join(p.names[:3])}: {p.reason}" for p in self.graph.protected[:5])
            cause = f"every channel is protected ({reasons})" if reasons else "it has no channels to remove"
        else:
            cause = f"all its {len(self.graph.groups)} groups are ignored or held by sizes in its code"
        warnings.warn(
            f"sparsity {wanted:g} was asked for, but nothing of {type(self.model).__name__} can be removed: {cause}",
            PruneWarning,
            stacklevel=4,
        )

    def _report(self, removed_units: Mapping[str, IntArray], refused: Mapping[str, str], seconds: float) -> PruneReport:
        before = self.graph
        after = before.pruned(removed_units) if removed_units else before
        removed = before.removed(removed_units)
        parameters = [name for name, _ in self.model.named_parameters()]
        dense = dense_shapes(before, self.state.initial_widths)
        params = [_params(shapes, parameters) for shapes in (dense, before.shapes, after.shapes)]
        macs = [replace(before, shapes=dense).macs(), before.macs(), after.macs()]
        changes = tuple(self._change(group, after.group(group.name), removed_units) for group in before.groups)
        counted = [change for change in changes if change.name not in self.ignored]
        channels = _fraction_gone(sum(c.initial for c in counted), sum(c.after for c in counted))
        fractions = {
            "channels": channels,
            "params": _fraction_gone(params[0], params[2]),
            "macs": _fraction_gone(macs[0], macs[2]),
        }
        shapes = " x ".join(str(shape) for shape in before.example_shapes)
        return PruneReport(
            changed=bool(removed_units),
            sparsity=fractions[self.request.target],
            channel_sparsity=channels,
            param_sparsity=fractions["params"],
            mac_sparsity=fractions["macs"],
            groups=changes,
            params_before=params[1],
            params_after=params[2],
            macs_before=macs[1],
            macs_after=macs[2],
            protected=(*before.protected, *_held(before, refused)),
            notes=self.notes,
            example=f"example {before.example_origin}: {shapes}",
            seconds=seconds,
            dry_run=self.request.dry_run,
            _removed=removed,
            _shapes=before.shapes,
        )

    def _change(self, group: Group, after: Group, removed_units: Mapping[str, IntArray]) -> GroupChange:
        units = removed_units.get(group.name, np.empty(0, dtype=np.int64))
        if len(group.root.units) == group.width:
            units = np.flatnonzero(np.isin(group.root.units, units))
        layers = tuple(sorted(group_layers(group)))
        return GroupChange(group.name, group.width, after.width, self.state.initial_widths[group.name], units, layers)


def take_step(step: Step) -> PruneReport:
    """Take the step; the state of a seeded criterion goes on only if the step succeeds."""
    criterion = step.request.importance.state_dict()
    try:
        report = step.take()
    except BaseException:
        step.request.importance.load_state_dict(criterion)
        raise
    if report.dry_run:
        step.request.importance.load_state_dict(criterion)
    return report


def _device_of(tensors: Mapping[str, Tensor]) -> Any:
    for tensor in tensors.values():
        return tensor.device
    raise ValueError("`model` has no parameters and no buffers: there is nothing to prune")


def _params(shapes: Mapping[str, tuple[int, ...]], parameters: Sequence[str]) -> int:
    return sum(int(np.prod(shapes[name], dtype=np.int64)) for name in parameters)


def _fraction_gone(initial: float, after: float) -> float:
    return 1.0 - after / initial if initial else 0.0


def _held(graph: Graph, refused: Mapping[str, str]) -> list[Protected]:
    return [
        Protected(reason, (name,), graph.group(name).width)
        for name, reason in refused.items()
        if any(group.name == name for group in graph.groups)
    ]


def _composed(
    kept: Mapping[str, Mapping[int, IntArray]], shapes: Mapping[str, tuple[int, ...]], removed: Removed
) -> dict[str, dict[int, IntArray]]:
    """Kept indices in the dense numbering after one more step."""
    composed = {name: dict(axes) for name, axes in kept.items()}
    for name, axes in removed.items():
        for axis, positions in axes.items():
            dense = composed.get(name, {}).get(axis)
            if dense is None:
                dense = np.arange(shapes[name][axis], dtype=np.int64)
            composed.setdefault(name, {})[axis] = np.delete(dense, positions)
    return composed
