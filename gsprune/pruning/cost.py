"""Parameters and MACs of a network, counted in one traced forward."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gsprune.rewrite.tensors import canonical_tensors, unwrapped
from gsprune.tracing import trace
from gsprune.tracing.graph import layer_of

__all__ = ["Cost", "LayerCost", "cost"]


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One line of a cost table.

    Attributes:
        name: the layer, "" for parameters of the model itself.
        params: its own parameters.
        macs: multiplications of its weights with activations, per example.
        shape: the shape of its weight, or of its first parameter.
    """

    name: str
    params: int
    macs: float
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters of a network and MACs of one forward.

    Attributes:
        params: number of parameters; tied parameters count once.
        macs: multiplications of weights with activations, per example of the batch. Products of two activations
            (attention), biases and norms do not count.
        layers: layers with parameters, in the order of registration.
    """

    params: int
    macs: float
    layers: tuple[LayerCost, ...]

    def __str__(self) -> str:
        width = max([5, *(len(layer.name) for layer in self.layers)])
        lines = [f"{'layer':<{width}} {'weight':<20} {'params':>12} {'MACs':>16}"]
        lines += [
            f"{layer.name:<{width}} {'x'.join(map(str, layer.shape)):<20} {layer.params:>12,} {layer.macs:>16,.0f}"
            for layer in self.layers
        ]
        lines.append(f"{'total':<{width}} {'':<20} {self.params:>12,} {self.macs:>16,.0f}")
        return "\n".join(lines)


def cost(model: nn.Module, example_inputs: Any = None, forward: Callable[..., Any] | None = None) -> Cost:
    """Count parameters and MACs of a network in one traced forward. The network is not changed.

    Args:
        model: the network.
        example_inputs: tensor, tuple or dict, whose size determines the MACs of convolutions; None generates an example
            that fits the first layer.
        forward: callable(model, *example_inputs) -> outputs; None calls the model.

    Raises:
        TraceError: no example fits, or the forward fails.
    """
    module = unwrapped(model)
    graph, _ = trace(module, example_inputs, forward)
    tensors = canonical_tensors(module)
    macs: dict[str, float] = {}
    for weight, uses in graph.weight_uses.items():
        layer = layer_of(weight)
        macs[layer] = macs.get(layer, 0.0) + uses * math.prod(tensors[weight].shape)
    parameters: dict[str, list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        parameters.setdefault(layer_of(name), []).append(parameter)
    layers = tuple(
        LayerCost(name, sum(p.numel() for p in own), macs.get(name, 0.0), tuple(own[0].shape))
        for name, own in parameters.items()
    )
    return Cost(sum(layer.params for layer in layers), float(sum(macs.values())), layers)
