"""A small ResNet, ConvNeXt and ViT, trained on scikit-learn's digits (8x8 grey pictures, 10 classes)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))
from networks import BasicBlock

__all__ = ["NETWORKS", "Digits", "trained_network"]

EPOCHS = 40
BATCH_SIZE = 64
NUM_TRAINING = 1200


class Digits(NamedTuple):
    """1,200 pictures for training and 597 others, (N, 1, 8, 8) float32 in [-1, 1], and their classes."""

    inputs: Tensor
    labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor

    @classmethod
    def load(cls) -> Digits:
        """Read the pictures, in an order that is always the same."""
        pixels, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        pixels, labels = (pixels.float() / 8 - 1).reshape(-1, 1, 8, 8)[order], labels[order]
        return cls(pixels[:NUM_TRAINING], labels[:NUM_TRAINING], pixels[NUM_TRAINING:], labels[NUM_TRAINING:])


def resnet() -> nn.Module:
    """Six blocks of 32, 64 and 128 channels."""
    layers: list[nn.Module] = [nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    for inputs, width, stride in ((32, 32, 1), (32, 64, 2), (64, 128, 2)):
        layers += [BasicBlock(inputs, width, stride), BasicBlock(width, width, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, LayerNorm and an MLP (Liu et al. 2022, https://arxiv.org/abs/2201.03545)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(width, width, 3, padding=1, groups=width), nn.LayerNorm(width)
        self.expand, self.project = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + self.project(F.gelu(self.expand(y))).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Two blocks of 32 and two of 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 2, 2), ConvNeXtBlock(32), ConvNeXtBlock(32),
            nn.Conv2d(32, 64, 2, 2), ConvNeXtBlock(64), ConvNeXtBlock(64),
        )  # fmt: skip
        self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.body(x).mean((2, 3))))


class Attention(nn.Module):
    """Self-attention; its scale stays that of the dense network."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, (width // num_heads) ** -0.5
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1) * self.scale).softmax(-1) @ v
        return self.project(y.transpose(1, 2).reshape(batch, tokens, -1))


class ViTBlock(nn.Module):
    """Attention and an MLP with norms in front (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, num_heads)
        self.norm2, self.expand = nn.LayerNorm(width), nn.Linear(width, 4 * width)
        self.project = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.project(F.gelu(self.expand(self.norm2(x))))


class ViT(nn.Module):
    """Four blocks of 64 channels and four heads over 16 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.positions = nn.Conv2d(1, 64, 2, 2), nn.Parameter(0.02 * torch.randn(1, 16, 64))
        self.body = nn.Sequential(*(ViTBlock(64, 4) for _ in range(4)))
        self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.body(x)).mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {"ResNet": resnet, "ConvNeXt": ConvNeXt, "ViT": ViT}


def trained_network(name: str, digits: Digits, seed: int) -> nn.Module:
    """A network of `NETWORKS` after 40 epochs of AdamW with a one-cycle schedule, in eval mode."""
    torch.manual_seed(seed)
    model = NETWORKS[name]()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    num_batches = NUM_TRAINING // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, EPOCHS * num_batches)
    for _ in range(EPOCHS):
        for batch in torch.randperm(NUM_TRAINING)[: num_batches * BATCH_SIZE].view(num_batches, BATCH_SIZE):
            optimizer.zero_grad()
            F.cross_entropy(model(digits.inputs[batch]), digits.labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()
