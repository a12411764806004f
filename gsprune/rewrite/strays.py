"""Warn where a step prunes two equal parts of a model apart, of which one learns and the other gets no gradient."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from torch import nn

from gsprune.errors import PruneWarning
from gsprune.tracing.graph import Graph, IntArray
from gsprune.tracing.twins import lookalikes

__all__ = ["warn_of_strays"]

Removed = Mapping[str, Mapping[int, IntArray]]


def warn_of_strays(model: nn.Module, graph: Graph, removed: Removed) -> None:
    """Warn of such pairs: only the user knows whether the code mixes the two, parameter by parameter.

    Args:
        model: the network.
        graph: its groups.
        removed: tensor -> {axis: positions that the step has removed}.
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
            stacklevel=6,
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
