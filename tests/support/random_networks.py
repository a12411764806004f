"""Random networks that mix every op that the tracer knows, as hypothesis strategies.

The stages stand in `random_blocks`, `random_operations` and `random_sequences`; here they are put in a row, beside and
around each other, with up to three inputs in front and one of several kinds of heads behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import random_operations  # noqa: F401  (enters its kinds into the table)
import random_sequences  # noqa: F401
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from random_blocks import ALL_KINDS, SIZE
from torch import Tensor, nn

from gsprune.tracing.outputs import tensors_in

CHANNELS = 3
STATE = 5
WORDS = 7

KINDS = tuple(ALL_KINDS)
EXACT_KINDS = tuple(name for name, entry in ALL_KINDS.items() if entry.exact)
UNTOLD_KINDS = tuple(name for name, entry in ALL_KINDS.items() if entry.exact and not entry.told)
SMOOTH_KINDS = tuple(name for name, entry in ALL_KINDS.items() if entry.smooth)
HEADS = ("actor_critic", "dict", "dueling", "distributional", "noisy", "dense")
INPUTS = ("image", "state", "words")


@dataclass(frozen=True)
class Block:
    """One stage of a random network: a kind and two small numbers that it reads as it needs.

    With others inside, the kind is the way in which these are put together.
    """

    kind: str
    width: int
    option: int
    inner: tuple[Block, ...] = ()

    def kinds(self) -> set[str]:
        """Its kind and those inside."""
        return {self.kind}.union(*(block.kinds() for block in self.inner))

    def build(self, channels: int) -> nn.Module:
        """The stage behind so many channels; its attribute ``out`` says how many leave it."""
        if self.inner:
            return Composed(self.kind, [block.build(channels) for block in self.inner], channels, self.width)
        return ALL_KINDS[self.kind].build(channels, self.width, self.option)


COMPOSITIONS = ("sum", "product", "cat", "around", "again", "under")


class Composed(nn.Module):
    """Stages side by side, around each other, used twice, or at half the resolution."""

    def __init__(self, kind: str, parts: list[nn.Module], channels: int, width: int) -> None:
        super().__init__()
        parts = parts[:1] if kind == "again" else parts  # an element that never runs would be warned of
        self.kind, self.parts = kind, nn.ModuleList(parts)
        self.out = {"cat": sum(part.out for part in parts), "around": channels, "again": parts[0].out}.get(kind, width)
        sizes = {"again": [channels], "cat": []}.get(kind, [self.out] * len(parts))
        self.joints = nn.ModuleList(nn.Conv2d(part.out, size, 1) for part, size in zip(parts, sizes, strict=False))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "again":
            return self.parts[0](torch.tanh(self.joints[0](self.parts[0](x))))
        if self.kind == "under":
            small = F.avg_pool2d(x, 2)
            branches = [F.interpolate(small, scale_factor=2), *[x for _ in self.parts[1:]]]
        else:
            branches = [x for _ in self.parts]
        made = [part(branch) for part, branch in zip(self.parts, branches, strict=True)]
        if self.kind == "cat":
            return torch.cat(made, 1)
        joined = [joint(branch) for joint, branch in zip(self.joints, made, strict=True)]
        total = joined[0]
        for other in joined[1:]:
            total = total * torch.sigmoid(other) if self.kind == "product" else total + other
        return x + total if self.kind == "around" else total


class Noisy(nn.Module):
    """A linear layer whose weights are drawn around learned ones, in training with noise that a buffer holds."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight_mu, self.weight_sigma = (nn.Parameter(torch.rand(outputs, inputs)) for _ in range(2))
        self.bias_mu = nn.Parameter(torch.rand(outputs))
        self.register_buffer("weight_epsilon", torch.rand(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight_mu + self.weight_sigma * self.weight_epsilon, self.bias_mu)


class Heads(nn.Module):
    """What a network puts out, behind a hidden layer or two."""

    def __init__(self, kind: str, features: int, hidden: int) -> None:
        super().__init__()
        linear = Noisy if kind == "noisy" else nn.Linear
        self.kind = kind
        self.hidden = linear(features, hidden)
        self.second = linear(features, hidden) if kind in ("dueling", "noisy") else None
        self.actor = linear(hidden, 20 if kind == "distributional" else 4)
        self.critic = linear(hidden, 1)

    def forward(self, x: Tensor) -> Any:
        h = torch.relu(self.hidden(x))
        g = h if self.second is None else torch.relu(self.second(x))
        actor, critic = self.actor(h), self.critic(g)
        if self.kind == "dict":
            return {"policy": torch.distributions.Categorical(logits=actor), "values": [critic, (actor.sum(1),)]}
        if self.kind == "dueling":
            return critic + actor - actor.mean(1, keepdim=True)
        if self.kind == "distributional":
            return actor.unflatten(1, (4, 5)).softmax(-1), critic
        return actor, critic


class RandomNet(nn.Module):
    """Inputs, blocks, then a flatten or a global pool, a hidden layer and heads."""

    def __init__(
        self, blocks: tuple[Block, ...], flatten: bool, hidden: int, heads: str = "actor_critic", inputs: str = "image"
    ) -> None:
        super().__init__()
        self.blocks = blocks
        channels = 6
        self.stem = nn.Conv2d(CHANNELS, channels, 3, padding=1)
        self.state = nn.Linear(STATE, channels) if inputs == "state" else None
        self.words = nn.Embedding(WORDS, channels) if inputs == "words" else None
        layers: list[nn.Module] = []
        for block in blocks:
            layers.append(block.build(channels))
            channels = layers[-1].out
        self.body = nn.ModuleList(layers)
        self.pool = nn.Identity() if flatten else nn.AdaptiveAvgPool2d(1)
        self.heads = Heads(heads, channels * (SIZE * SIZE if flatten else 1), hidden)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Any:
        x = self.stem(x)
        if self.state is not None:
            x = x + torch.tanh(self.state(other))[:, :, None, None]
        if self.words is not None:
            x = x * self.words(other).mean(1)[:, :, None, None]
        for layer in self.body:
            x = layer(x)
        return self.heads(torch.flatten(self.pool(torch.relu(x)), 1))


def example(net: RandomNet, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
    """Inputs for a network, in its dtype."""
    generator = torch.Generator().manual_seed(seed)
    dtype = net.stem.weight.dtype
    inputs = (torch.randn(batch, CHANNELS, SIZE, SIZE, generator=generator, dtype=dtype),)
    if net.state is not None:
        inputs += (torch.randn(batch, STATE, generator=generator, dtype=dtype),)
    if net.words is not None:
        inputs += (torch.randint(WORDS, (batch, 4), generator=generator),)
    return inputs


def outputs_of(net: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """All tensors that a network puts out."""
    return tensors_in(net(*inputs))


def loss_of(net: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """A loss that every output has a part in."""
    return sum(((output + 0.1 * i).sin().mean() for i, output in enumerate(outputs_of(net, inputs))), torch.zeros(()))


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
    leaves = st.builds(Block, st.sampled_from(kinds), st.integers(1, 6), st.integers(0, 2))
    pairs = st.lists(leaves, min_size=1, max_size=2).map(tuple)
    compositions = st.builds(Block, st.sampled_from(COMPOSITIONS), st.integers(1, 6), st.just(0), pairs)
    blocks = st.lists(leaves | compositions, max_size=max_blocks).map(tuple)

    def build(*arguments: Any) -> RandomNet:
        *structure, channels_last, seed = arguments
        net = RandomNet(*structure).double()
        randomize(net, seed)
        for parameter in net.parameters():
            if channels_last and parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return net

    return st.builds(
        build,
        blocks,
        st.booleans(),
        st.integers(2, 7),
        st.sampled_from(HEADS),
        st.sampled_from(INPUTS),
        st.booleans(),
        st.integers(0, 2**20),
    )
