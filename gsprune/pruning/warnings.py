"""The warnings of a step: parts that the example did not run, twins pruned apart, requests that cannot be met."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping

from torch import nn

from gsprune.checks import listed
from gsprune.errors import PruneWarning
from gsprune.pruning.report import PruneReport
from gsprune.rewrite.session import Session
from gsprune.tracing.copies import untied_twins
from gsprune.tracing.graph import Graph, IntArray

__all__ = ["warn_after_step"]

Removed = Mapping[str, Mapping[int, IntArray]]


def warn_after_step(session: Session, report: PruneReport) -> None:
    """Warn of what a user should know; always in the same words, which Python's filters show once.

    Args:
        session: the session before the step.
        report: the step.
    """
    if not report.changed:
        _warn_if_stuck(session, report)
    elif not session.verified and not report.dry_run:  # the first step that removes anything
        _warn_of_unseen(session.model, session.groups.traced)
        _warn_of_strays(session.model, session.groups.traced, report.removed_positions)


def _warn(text: str) -> None:
    """Warn at the line outside of gsprune that asked for the step."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("gsprune."):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, PruneWarning, stacklevel=level)


def _warn_if_stuck(session: Session, report: PruneReport) -> None:
    """Give the reason why more is requested than can be removed."""
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
    """Name the parts that the example did not run: the channels that they read are not certain."""
    names = graph.unseen
    if names:
        _warn(
            f"the example did not run {listed(names)} of {type(model).__name__}: these parts keep their widths, as do"
            " the channels beside them that they may read (report.protected); they fail if they read others. Let it run"
            " every part, e.g. forward=lambda model, x: [model(x, task) for task in tasks]"
        )


def _warn_of_strays(model: nn.Module, graph: Graph, removed: Removed) -> None:
    """Name equal parts that lost different channels, of which one learns and the other gets no gradient.

    Only the user knows whether the code mixes the two, parameter by parameter.
    """
    learns = [parameter.grad is not None for parameter in model.parameters()]
    if all(learns) or not any(learns):  # gradients say nothing
        return
    for pair in untied_twins(model, graph.copies):
        still, moving = sorted(pair, key=lambda name: _learns(model, name))
        if not _learns(model, still) and _learns(model, moving) and _lost(removed, still) != _lost(removed, moving):
            _warn(
                f"{still!r} and {moving!r} of {type(model).__name__} have the same structure, {still!r} has no"
                " gradient, and they lose different channels. If the code mixes their weights (momentum encoder, target"
                f" network), pass followers=[(model.{still}, model.{moving})] from the first step on"
            )


def _learns(model: nn.Module, name: str) -> bool:
    return any(parameter.grad is not None for parameter in model.get_submodule(name).parameters())


def _lost(removed: Removed, name: str) -> dict[str, dict[int, list[int]]]:
    """Removed positions of the tensors of a submodule."""
    return {
        tensor.removeprefix(f"{name}."): {axis: positions.tolist() for axis, positions in axes.items()}
        for tensor, axes in removed.items()
        if tensor.startswith(f"{name}.")
    }
