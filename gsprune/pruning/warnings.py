"""The warnings of a step: unreachable sparsity, modules that the example did not run, and twins pruned differently."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping

from torch import nn

from gsprune.arrays import IntArray
from gsprune.checks import listed
from gsprune.errors import PruneWarning
from gsprune.pruning.report import PruneReport
from gsprune.rewrite.session import Session
from gsprune.tracing.copies import untied_twins
from gsprune.tracing.graph import Graph

__all__ = ["warn_after_step"]

Removed = Mapping[str, Mapping[int, IntArray]]


def warn_after_step(session: Session, report: PruneReport) -> None:
    """Warn the user if needed. The text is the same at every step, so Python's filters show it only once."""
    if not report.changed:
        _warn_if_stuck(session, report)
    elif not session.verified and not report.dry_run:  # the first step that removes anything
        _warn_of_unseen(session.model, session.groups.traced)
        _warn_of_untied_twins(session.model, session.groups.traced, report.removed_positions)


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
    """Warn of modules that the example did not run, because the channels that they read are unknown."""
    names = graph.unseen
    if names:
        _warn(
            f"the example did not run {listed(names)} of {type(model).__name__}. These modules keep their widths, and"
            " so do the channels that they seem to read (report.protected). If they read other channels, they will"
            " fail. Pass an example that runs every module,"
            " e.g. forward=lambda model, x: [model(x, task) for task in tasks]"
        )


def _warn_of_untied_twins(model: nn.Module, graph: Graph, removed: Removed) -> None:
    """Warn of two modules with the same structure that lost different channels, if only one of them has gradients.

    Only the user knows whether the code mixes their weights, as for a momentum encoder.
    """
    has_gradient = [parameter.grad is not None for parameter in model.parameters()]
    if all(has_gradient) or not any(has_gradient):  # gradients do not distinguish the two
        return
    for pair in untied_twins(model, graph.copies):
        is_trained = {name: _has_gradients(model, name) for name in pair}
        frozen, trained = sorted(pair, key=is_trained.__getitem__)
        if is_trained[frozen] != is_trained[trained] and _lost(removed, frozen) != _lost(removed, trained):
            _warn(
                f"{frozen!r} and {trained!r} of {type(model).__name__} have the same structure, {frozen!r} has no"
                " gradient, and they lose different channels. If the code mixes their weights (momentum encoder, target"
                f" network), pass followers=[(model.{frozen}, model.{trained})] from the first step on"
            )


def _has_gradients(model: nn.Module, name: str) -> bool:
    return any(parameter.grad is not None for parameter in model.get_submodule(name).parameters())


def _lost(removed: Removed, name: str) -> dict[str, dict[int, list[int]]]:
    """Removed positions of the tensors of a submodule."""
    return {
        tensor.removeprefix(f"{name}."): {axis: positions.tolist() for axis, positions in axes.items()}
        for tensor, axes in removed.items()
        if tensor.startswith(f"{name}.")
    }
