"""Compares one pruning step of gsprune, Torch-Pruning and torch.nn.utils.prune on ResNet-18 and Impala.

Each removes half of the channels by L1 norms from a network with Adam's moments. Usage: python bench/compare_peers.py
Needs the extra `bench` (Torch-Pruning 1.6.1).
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from statistics import median

import torch
from networks import BasicBlock, Make, impala, with_moments
from torch import Tensor, nn
from torch.nn.utils import prune

import gsprune

Step = Callable[[nn.Module, Tensor, torch.optim.Optimizer], None]
SPARSITY = 0.5
ROUNDS = 5


def resnet18() -> tuple[nn.Module, Tensor]:
    """ResNet-18 with 11.7 million parameters, and an example."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    inputs = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [BasicBlock(inputs, width, stride), BasicBlock(width, width, 1)]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)), torch.zeros(
        1, 3, 224, 224
    )


def prune_by_gsprune(model: nn.Module, example: Tensor, optimizer: torch.optim.Optimizer) -> None:
    gsprune.prune_step(model, SPARSITY, optimizer=optimizer, example_inputs=example)


def prune_by_torch_pruning(model: nn.Module, example: Tensor, optimizer: torch.optim.Optimizer) -> None:
    import torch_pruning

    del optimizer  # it has no argument for it
    outputs = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features in (1, 15, 1000)]
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=1)
    torch_pruning.pruner.BasePruner(
        model, example, importance=importance, pruning_ratio=SPARSITY, ignored_layers=outputs
    ).step()


def prune_by_torch(model: nn.Module, example: Tensor, optimizer: torch.optim.Optimizer) -> None:
    del example, optimizer
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.shape[0] not in (1, 15, 1000):
            prune.ln_structured(module, "weight", SPARSITY, n=1, dim=0)
            prune.remove(module, "weight")


STEPS: dict[str, Step] = {
    "gsprune": prune_by_gsprune,
    "Torch-Pruning 1.6.1": prune_by_torch_pruning,
    "torch.nn.utils.prune": prune_by_torch,
}
NETWORKS: dict[str, Make] = {"ResNet-18": resnet18, "Impala (width 4)": impala(4)}


@torch.no_grad()
def latency_ms(model: nn.Module, example: Tensor) -> float:
    """Median time of one forward in evaluation mode, in milliseconds."""
    model.eval()
    times = []
    for _ in range(12):
        start = time.perf_counter()
        model(example)
        times.append(time.perf_counter() - start)
    return 1e3 * median(times[2:])


def known_share(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """Parameters of the model that the optimizer holds moments for, in the shape of the parameter."""
    parameters = list(model.parameters())
    moments = [optimizer.state.get(parameter, {}).get("exp_avg") for parameter in parameters]
    known = sum(m is not None and m.shape == p.shape for m, p in zip(moments, parameters, strict=True))
    return f"{known} of {len(parameters)}"


def row(network: str, tool: str) -> str:
    """One line of the table."""
    seconds = []
    for _ in range(ROUNDS):
        model, example, optimizer = with_moments(NETWORKS[network], torch.device("cpu"))
        before = latency_ms(model, example)
        count = sum(parameter.numel() for parameter in model.parameters())
        start = time.perf_counter()
        STEPS[tool](model, example, optimizer)
        seconds.append(time.perf_counter() - start)
    after = latency_ms(model, example)
    left = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"| {network} | {tool} | {1e3 * median(seconds):.0f} | {count / 1e6:.2f} -> {left / 1e6:.2f} |"
        f" {before:.1f} -> {after:.1f} | {known_share(model, optimizer)} |"
    )


def main() -> None:
    """Print the table, in Markdown."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    lines = ["| network | tool | first step, ms | million parameters | forward, ms | parameters with moments |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: |"]
    lines += [row(network, tool) for network in NETWORKS for tool in STEPS]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
