"""The size of a network at one moment of a training, for its metrics."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

import gsprune
from gsprune.baselines.method import StepReport
from gsprune.networks import FRAME_SHAPE, ObservationShape, example_frames

__all__ = ["NetworkSize"]


@dataclass(frozen=True)
class NetworkSize:
    """The size of a network.

    Attributes:
        widths: group name -> width, in the order of the forward pass.
        params: number of parameters.
        macs: multiplications with weights for one frame.
    """

    widths: dict[str, int]
    params: int
    macs: float

    @classmethod
    def of(cls, model: nn.Module, observation_shape: ObservationShape = FRAME_SHAPE) -> NetworkSize:
        """Measure `model`, which takes observations (B, C, H, W) uint8."""
        example = example_frames(1, next(model.parameters()).device, observation_shape)
        graph = gsprune.trace(model, example_inputs=example)
        params = sum(parameter.numel() for parameter in model.parameters())
        return cls({group.name: group.width for group in graph.groups}, params, graph.macs())

    def after(self, report: StepReport) -> NetworkSize:
        """The size after a step of any `SparsityMethod`. Methods that mask do not change it."""
        if not isinstance(report, gsprune.PruneReport):
            return self
        widths = {group.name: group.after for group in report.groups}
        return NetworkSize(widths, report.params_after, report.macs_after)

    def row(self, dense: NetworkSize) -> dict[str, float | int]:
        """Metrics of this size compared to the dense network's.

        Keys: ``pruning/channel_sparsity``, ``pruning/param_sparsity``, ``pruning/mac_sparsity`` (removed fractions),
        ``pruning/params``, ``pruning/macs`` and ``width/<group>``.
        """
        return {
            "pruning/channel_sparsity": _removed(sum(self.widths.values()), sum(dense.widths.values())),
            "pruning/param_sparsity": _removed(self.params, dense.params),
            "pruning/mac_sparsity": _removed(self.macs, dense.macs),
            "pruning/params": self.params,
            "pruning/macs": self.macs,
            **{f"width/{name}": width for name, width in self.widths.items()},
        }


def _removed(now: float, dense: float) -> float:
    """The removed fraction; 0 for a network that has nothing to remove."""
    return 1 - now / dense if dense else 0.0
