"""The networks that all benches share, with gradients and the two moments of Adam, and what a small cut keeps."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsprune.backends import Backend, CppBackend, Pattern, get_backend
from gsprune.networks import ActorCritic, build_encoder

KEPT = 0.95  # of every group, per step
IMPALA_WIDTHS = (1, 2, 4, 8)


class Bottleneck(nn.Module):
    """ResNet's 1x1, 3x3, 1x1 block (He et al. 2016, https://arxiv.org/abs/1512.03385)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != 4 * width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


class ResNet50(nn.Sequential):
    """25.6 million parameters in 161 tensors, as torchvision's."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        layers.append(nn.MaxPool2d(3, 2, 1))
        inputs = 64
        for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for block in range(blocks):
                layers.append(Bottleneck(inputs, width, stride if block == 0 else 1))
                inputs = 4 * width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))


def impala(width: int) -> Callable[[], tuple[nn.Module, Tensor]]:
    """Makes the Impala agent of that width, and an example."""

    def make() -> tuple[nn.Module, Tensor]:
        return ActorCritic(build_encoder("impala", width), 15), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)

    return make


def resnet50() -> tuple[nn.Module, Tensor]:
    """ResNet-50 and an example."""
    return ResNet50(), torch.zeros(1, 3, 64, 64)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    **{f"impala-{width}": impala(width) for width in IMPALA_WIDTHS},
    "resnet-50": resnet50,
}


def trained(name: str) -> tuple[nn.Module, Tensor, torch.optim.Optimizer]:
    """A network of `NETWORKS` with gradients and moments, and its example."""
    torch.manual_seed(0)
    model, example = NETWORKS[name]()
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return model, example, optimizer


def after_a_step(tensors: list[Tensor]) -> list[Tensor]:
    """Copies where a step leaves its tensors, in blocks of the core: a dense network's may lie on small pages."""
    return CppBackend().slice(tensors, [Pattern(())], [0] * len(tensors))


def four_tensors(name: str) -> tuple[list[Tensor], list[Tensor], list[Pattern], list[int]]:
    """Weights; then weights, gradients and both moments as a step leaves them, patterns that keep 95 % of every group's
    axes, and the pattern of each."""
    model, _, optimizer = trained(name)
    generator = np.random.default_rng(0)
    keeps: dict[int, np.ndarray] = {}

    def keep(size: int) -> np.ndarray:
        if size not in keeps:
            keeps[size] = np.sort(generator.choice(size, max(1, int(KEPT * size)), replace=False)).astype(np.int64)
        return keeps[size]

    weights = list(model.parameters())
    patterns = [Pattern(tuple((axis, keep(p.shape[axis])) for axis in range(min(2, p.ndim)))) for p in weights]
    states = [optimizer.state[p] for p in weights]
    tensors = [p.detach() for p in weights] + [p.grad for p in weights]
    tensors += [s["exp_avg"] for s in states] + [s["exp_avg_sq"] for s in states]
    return weights, after_a_step(tensors), patterns, list(range(len(weights))) * 4


def extra_info(name: str) -> dict[str, object]:
    """What a saved result must say about where it comes from."""
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return {
        "network": name,
        "device": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": head.stdout.strip() or "unknown",
    }


def gpu_backend() -> Backend:
    """The Triton provider; skips where there is no GPU. `scripts/gpu_check.py` times it where there is one."""
    if not torch.cuda.is_available():
        pytest.skip("triton: no CUDA device")
    return get_backend("triton", torch.device("cuda"))


def matrices(tensors: list[Tensor]) -> Iterator[Tensor]:
    """Tensors that are scored: those with two axes or more."""
    return (tensor for tensor in tensors if tensor.ndim > 1)
