"""The warnings of a step: unreachable sparsity, parts that the example did not run, and twins pruned differently."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence

from torch import nn
from torch.optim import Optimizer

from gsprune.arrays import IntArray
from gsprune.checks import listed
from gsprune.errors import PruneWarning
from gsprune.pruning.report import PruneReport
from gsprune.rewrite.session import Session
from gsprune.tracing.copies import untied_twins
from gsprune.tracing.graph import Graph

__all__ = ["warn_after_step"]

Removed = Mapping[str, Mapping[int, IntArray]]


def warn_after_step(session: Session, report: PruneReport, optimizers: Sequence[Optimizer]) -> None:
    """Warn the user if needed. The text is the same at every step, so Python's filters show it only once."""
    if not report.changed:
        _warn_if_stuck(session, report)
    elif not session.verified and not report.dry_run:  # the first step that removes anything
        _warn_of_unseen(session.model, session.groups.traced)
        _warn_of_untied_twins(session.model, session.groups.graph, report.removed_positions, optimizers)


def _warn(text: str) -> None:
    """Warn at the line outside of gsprune that called the step."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("gsprune."):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, PruneWarning, stacklevel=level)


def _warn_if_stuck(session: Session, report: PruneReport) -> None:
    """Warn if nothing was removed although more was requested, and give the reason."""
    requested = report.requested
    if (max(requested.values(), default=0.0) if isinstance(requested, Mapping) else requested) <= 0:
        return
    graph = session.groups.traced
    if graph.groups:
        missing = report.shortfall
        if missing is None or not missing.final:
            return
        cause = str(missing)
    elif graph.protected:
        reasons = "; ".join(f"{', '.join(p.names[:3])}: {p.reason}" for p in graph.protected[:5])
        cause = f"every channel is protected ({reasons})"
    else:
        cause = "it has no channels to remove"
    more = "more " if report.channel_sparsity > 0 else ""
    _warn(f"nothing {more}of {type(session.model).__name__} can be removed: {cause}")


def _warn_of_unseen(model: nn.Module, graph: Graph) -> None:
    """Warn of parts that the example did not run, because the channels that they read are unknown."""
    names = graph.unseen
    if names:
        _warn(
            f"the example did not run {listed(names)} of {type(model).__name__}. These parts keep their widths, and so"
            " do the channels that they seem to read (report.protected). If they read other channels, they will fail."
            " Pass a call that runs every part, e.g. forward=lambda model, x: (model(x), model.get_value(x))"
        )


def _warn_of_untied_twins(model: nn.Module, before: Graph, removed: Removed, optimizers: Sequence[Optimizer]) -> None:
    """Warn of two modules with the same structure that lost different channels, if only one of them is trained.

    Only the user knows whether the code mixes their weights, as for a momentum encoder. A loop that passes no optimizer
    and clears the gradients does not show which of the two is trained.
    """
    trained = _trained_parameters(model, optimizers)
    for pair in untied_twins(model, before) if trained else ():
        is_trained = {
            name: any(id(parameter) in trained for parameter in model.get_submodule(name).parameters()) for name in pair
        }
        idle, learner = sorted(pair, key=is_trained.__getitem__)
        lost = [_lost(removed, before.aliases, name) for name in pair]
        if is_trained[idle] != is_trained[learner] and lost[0] != lost[1]:
            _warn(
                f"{idle!r} and {learner!r} of {type(model).__name__} have the same structure, {idle!r} is not trained"
                " (it has no gradient, or is not in `optimizer`), and they lose different channels. If the code mixes"
                f" their weights (momentum encoder, target network), pass followers=[(model.{idle}, model.{learner})]"
                " from the first step on"
            )


def _trained_parameters(model: nn.Module, optimizers: Sequence[Optimizer]) -> set[int]:
    """Ids of the parameters with a gradient; if none has one, of those in the optimizers."""
    with_gradient = {id(parameter) for parameter in model.parameters() if parameter.grad is not None}
    if with_gradient:
        return with_gradient
    return {id(parameter) for each in optimizers for group in each.param_groups for parameter in group["params"]}


def _lost(removed: Removed, aliases: Mapping[str, str], name: str) -> dict[str, dict[int, list[int]]]:
    """Removed positions of the tensors of a submodule, also of those that are tied to tensors elsewhere."""
    canonical = {**{tensor: tensor for tensor in removed}, **aliases}
    return {
        tensor.removeprefix(f"{name}."): {axis: positions.tolist() for axis, positions in removed[first].items()}
        for tensor, first in canonical.items()
        if tensor.startswith(f"{name}.") and first in removed
    }
