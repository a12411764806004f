"""Random networks of the ops that the core path covers, as hypothesis strategies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

CHANNELS = 3
SIZE = 8


@dataclass(frozen=True)
class Block:
    """One stage of a random network: a kind and two small numbers that it reads as it needs."""

    kind: str
    width: int
    option: int


ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Sigmoid)
EXACT_KINDS = ("conv", "norm", "residual", "dense", "depthwise", "grouped", "gate", "pool", "parallel", "scale")
KINDS = (*EXACT_KINDS, "layer_norm", "group_norm")


class Residual(nn.Module):
    def __init__(self, channels: int, inner: int, norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 3, padding=1)
        self.norm = nn.BatchNorm2d(inner) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(inner, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(torch.relu(self.norm(self.conv1(torch.relu(x)))))


class Dense(nn.Module):
    """Concatenation with its own input, as in DenseNet."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(x)], dim=1)


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, hidden, 1)
        self.up = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Parallel(nn.Module):
    """Two branches, added: their outputs are tied."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.left = nn.Conv2d(channels, width, 1)
        self.right = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x)


class Scale(nn.Module):
    """A bare parameter per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(channels, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def build_block(block: Block, channels: int) -> tuple[nn.Module, int]:
    """The module of a block and the channels it puts out."""
    width = block.width
    groups = block.option + 2
    built: dict[str, tuple[nn.Module, int]] = {
        "conv": (nn.Conv2d(channels, width, 3, padding=1, bias=block.option > 0), width),
        "norm": (nn.Sequential(nn.BatchNorm2d(channels), ACTIVATIONS[block.option % 5]()), channels),
        "residual": (Residual(channels, width, block.option > 1), channels),
        "dense": (Dense(channels, width), channels + width),
        "depthwise": (
            nn.Conv2d(channels, channels * (block.option % 2 + 1), 3, padding=1, groups=channels),
            channels * (block.option % 2 + 1),
        ),
        "grouped": (
            nn.Sequential(
                nn.Conv2d(channels, width * groups, 1),
                nn.ReLU(),
                nn.Conv2d(width * groups, 2 * groups, 3, padding=1, groups=groups),
            ),
            2 * groups,
        ),
        "gate": (Gate(channels, width), channels),
        "pool": (
            nn.MaxPool2d(3, stride=1, padding=1) if block.option % 2 else nn.AvgPool2d(3, stride=1, padding=1),
            channels,
        ),
        "parallel": (Parallel(channels, width), width),
        "scale": (Scale(channels), channels),
        "layer_norm": (nn.LayerNorm([channels, SIZE, SIZE]), channels),
        "group_norm": (nn.Sequential(nn.Conv2d(channels, 2 * width, 1), nn.GroupNorm(2, 2 * width)), 2 * width),
    }
    return built[block.kind]


class RandomNet(nn.Module):
    """Blocks, then a flatten or a global pool, a hidden layer and two heads."""

    def __init__(self, blocks: tuple[Block, ...], flatten: bool, hidden: int) -> None:
        super().__init__()
        stem = 6
        layers: list[nn.Module] = [nn.Conv2d(CHANNELS, stem, 3, padding=1)]
        channels = stem
        for block in blocks:
            module, channels = build_block(block, channels)
            layers.append(module)
        self.body = nn.Sequential(*layers)
        self.pool = nn.Identity() if flatten else nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Linear(channels * (SIZE * SIZE if flatten else 1), hidden)
        self.actor = nn.Linear(hidden, 4)
        self.critic = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.relu(self.hidden(torch.flatten(self.pool(torch.relu(self.body(x))), 1)))
        return self.actor(h), self.critic(h)


def randomize(module: nn.Module, seed: int) -> None:
    """Parameters and statistics that hide nothing: no zero biases, no unit scales, positive variances."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.3)
        for name, buffer in module.named_buffers():
            if buffer.is_floating_point():
                noise = torch.rand(buffer.shape, generator=generator, dtype=buffer.dtype)
                buffer.copy_(noise + 0.5 if "var" in name else noise - 0.5)


def networks(kinds: tuple[str, ...] = EXACT_KINDS, max_blocks: int = 5) -> st.SearchStrategy[RandomNet]:
    """Random networks in float64, so that agreement can be asked for to 1e-9."""
    blocks = st.lists(
        st.builds(Block, st.sampled_from(kinds), st.integers(1, 6), st.integers(0, 2)), max_size=max_blocks
    ).map(tuple)

    def build(blocks: tuple[Block, ...], flatten: bool, hidden: int, seed: int) -> RandomNet:
        net = RandomNet(blocks, flatten, hidden).double()
        randomize(net, seed)
        return net

    return st.builds(build, blocks, st.booleans(), st.integers(2, 7), st.integers(0, 2**20))


def example(batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, CHANNELS, SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
