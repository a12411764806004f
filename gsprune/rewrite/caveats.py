"""What a trace cannot know of a model, and what a user is warned of when the model first loses channels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from torch import nn

from gsprune.errors import PruneWarning
from gsprune.tracing.copies import lookalikes
from gsprune.tracing.graph import Graph, IntArray

__all__ = ["warn_of_caveats"]

Removed = Mapping[str, Mapping[int, IntArray]]


def warn_of_caveats(model: nn.Module, graph: Graph, removed: Removed) -> None:
    """Warn of parts that the example did not run, and of look-alikes that were pruned apart.

    Args:
        model: the network.
        graph: its groups.
        removed: tensor -> {axis: positions that the step has removed}.
    """
    _warn_of_unseen(model, graph)
    _warn_of_strays(model, graph, removed)


def _warn_of_unseen(model: nn.Module, graph: Graph) -> None:
    """Name the parts that the example did not run: what they read is not certain."""
    names = graph.unseen
    if names:
        listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        warnings.warn(
            f"the example did not run {listed} of {type(model).__name__}: these parts keep their widths, as do the"
            " channels beside them that they may read (report.protected); they fail if they read others. Let it run"
            " every part, e.g. forward=lambda model, x: [model(x, task) for task in tasks]",
            PruneWarning,
            stacklevel=7,
        )


def _warn_of_strays(model: nn.Module, graph: Graph, removed: Removed) -> None:
    """Name equal parts that lost different channels, of which one learns and the other gets no gradient.

    Only the user knows whether the code mixes the two, parameter by parameter.
    """
    learns = [parameter.grad is not None for parameter in model.parameters()]
    if all(learns) or not any(learns):  # nothing can be told
        return
    for pair in lookalikes(model, graph.copies):
        still, moving = sorted(pair, key=lambda name: _learns(model, name))
        if _learns(model, still) or not _learns(model, moving) or _lost(removed, still) == _lost(removed, moving):
            continue
        warnings.warn(
            f"{still!r} and {moving!r} of {type(model).__name__} have the same structure, {still!r} has no gradient,"
            " and they lose different channels. If the code mixes their weights (momentum encoder, target network),"
            f" pass followers=[(model.{still}, model.{moving})] from the first step on",
            PruneWarning,
            stacklevel=7,
        )


def _learns(model: nn.Module, name: str) -> bool:
    return any(parameter.grad is not None for parameter in model.get_submodule(name).parameters())


def _lost(removed: Removed, name: str) -> dict[str, dict[int, list[int]]]:
    """What the tensors of a submodule have lost."""
    return {
        tensor.removeprefix(f"{name}."): {axis: positions.tolist() for axis, positions in axes.items()}
        for tensor, axes in removed.items()
        if tensor.startswith(f"{name}.")
    }
