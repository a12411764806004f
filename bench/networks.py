"""The networks that benches and the scripts for GPUs run on."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsprune.networks import ActorCritic, build_encoder

__all__ = ["NETWORKS", "BasicBlock", "Make", "with_moments"]

Make = Callable[[], tuple[nn.Module, Tensor]]  # a network and an example of its input
IMPALA_WIDTHS = (1, 2, 4, 8)


class BasicBlock(nn.Module):
    """ResNet's block of two 3x3 convolutions (He et al. 2016, https://arxiv.org/abs/1512.03385)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


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


def impala(width: int) -> Make:
    """Makes the Impala agent of that width, and an example."""

    def make() -> tuple[nn.Module, Tensor]:
        return ActorCritic(build_encoder("impala", width), 15), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)

    return make


def resnet50() -> tuple[nn.Module, Tensor]:
    """ResNet-50 and an example."""
    return ResNet50(), torch.zeros(1, 3, 64, 64)


NETWORKS: dict[str, Make] = {
    **{f"impala-{width}": impala(width) for width in IMPALA_WIDTHS},
    "resnet-50": resnet50,
}


def with_moments(make: Make, device: torch.device) -> tuple[nn.Module, Tensor, torch.optim.Optimizer]:
    """A network with gradients and Adam's moments, as after an optimizer step, and its example."""
    torch.manual_seed(0)
    model, example = make()
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return model, example.to(device), optimizer
