"""Small networks, each with one thing that a tracer must understand, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations


@dataclass(frozen=True)
class Entry:
    """A network of the zoo.

    Attributes:
        build: makes the network.
        inputs: makes the inputs of its example.
        parameters: the fraction of the parameters that may stay when half of the channels are asked to go.
        exact: whether the sliced network must equal the masked one to 1e-9.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    parameters: float
    exact: bool = True


ZOO: dict[str, Entry] = {}


def entry(
    inputs: Callable[[], Any], parameters: float, exact: bool = True
) -> Callable[[type[nn.Module]], type[nn.Module]]:
    def add(module: type[nn.Module]) -> type[nn.Module]:
        ZOO[module.__name__] = Entry(module, inputs, parameters, exact)
        return module

    return add


def images(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(
        *(shape or (2, 3, 8, 8)), dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )


def tokens(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randint(10, shape or (2, 5), generator=torch.Generator().manual_seed(0))


@entry(images(2, 3, 16), 0.45)
class Signals(nn.Module):
    """Conv1d, its transposed form, dilation and stride."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(3, 8, 3, padding=1),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Conv1d(8, 12, 3, stride=2),
            nn.LeakyReLU(),
            nn.ConvTranspose1d(12, 10, 3),
            nn.AvgPool1d(2),
            nn.Conv1d(10, 8, 1),
            nn.AdaptiveMaxPool1d(1),
            nn.Flatten(),
            nn.Linear(8, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@entry(images(1, 2, 4, 6, 6), 0.45)
class Volumes(nn.Module):
    """Conv3d, pools and upsampling in three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv3d(2, 8, 3, padding=1)
        self.norm = nn.InstanceNorm3d(8, affine=True, track_running_stats=True)
        self.inner = nn.Conv3d(8, 8, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose3d(8, 6, 2, stride=2)
        self.head = nn.Conv3d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool3d(F.relu(self.norm(self.down(x))), 2)
        return self.head(self.up(self.inner(y)))


@entry(images(), 0.6)
class TransposedGroups(nn.Module):
    """Grouped and depthwise transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.grouped = nn.ConvTranspose2d(12, 18, 3, padding=1, groups=3)
        self.depthwise = nn.ConvTranspose2d(18, 18, 3, padding=1, groups=18)
        self.head = nn.Conv2d(18, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.depthwise(F.elu(self.grouped(self.stem(x)))))


@entry(images(), 0.55)
class RunningInstances(nn.Module):
    """InstanceNorm with running statistics views the batch into the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.norm = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
        self.head = nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.stem(x))))


@entry(images(), 0.45)
class Gates(nn.Module):
    """PReLU per channel, squeeze and excitation, layer scale, GLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.act = nn.PReLU(12)
        self.down, self.up = nn.Linear(12, 6), nn.Linear(6, 12)
        self.gamma = nn.Parameter(torch.rand(12, 1, 1))
        self.wide = nn.Conv2d(12, 16, 3, padding=1)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))
        x = x * gate[:, :, None, None] * self.gamma
        return self.head(F.glu(self.wide(x), 1))


@entry(images(), 0.6)
class Moves(nn.Module):
    """Chunks, stacks, flips, rolls, padding, where, masks and clones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.left, self.right = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.head = nn.Conv2d(16, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.stem(x).chunk(2, 1)
        a = torch.roll(self.left(a), (1, 2), (2, 3)).flip(3)
        b = torch.where(b > 0, self.right(b), b * 0.1)
        s = torch.stack([a, b], 0).sum(0)
        s = F.pad(s, (1, 1, 1, 1)).clone()[:, :, 1:-1, 1:-1]
        s = s.masked_fill(s > 3, 3.0)
        return self.head(torch.cat((s, a), 1))


@entry(images(), 0.6)
class Shuffles(nn.Module):
    """Pixel shuffle and unshuffle, channel shuffle by views, grouped convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.mid = nn.Conv2d(4, 6, 3, padding=1)
        self.grouped = nn.Conv2d(24, 24, 1, groups=3)
        self.after = nn.Conv2d(24, 12, 1, groups=3)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_shuffle(self.stem(x), 2)
        x = F.pixel_unshuffle(self.mid(x), 2)
        x = self.grouped(x)
        n, c, h, w = x.shape
        x = x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(self.after(x))


@entry(images(2, 3, 16, 16), 0.35)
class UNet(nn.Module):
    """Skip connections, interpolation, concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.enc1, self.enc2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.mid = nn.Conv2d(16, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.dec = nn.Conv2d(24, 8, 3, padding=1)
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.enc1(x))
        b = F.relu(self.enc2(F.max_pool2d(a, 2)))
        c = F.interpolate(self.mid(F.avg_pool2d(b, 2)), scale_factor=2, mode="bilinear")
        d = self.dec(torch.cat([self.up(b), F.interpolate(c, scale_factor=2)], 1))
        return self.out(torch.cat([d, a], 1))


@entry(images(2, 6), 0.6)
class Decoder(nn.Module):
    """A linear layer un-flattened into channels: only those are pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.grow = nn.Linear(6, 8 * 4 * 4)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1)
        self.out = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.grow(z).view(z.shape[0], -1, 4, 4)
        return self.out(torch.relu(self.up(torch.relu(self.norm(x)))))


class Attention(nn.Module):
    """Self-attention of one projection; `how` says in which words it is written."""

    def __init__(self, width: int, heads: int, how: str) -> None:
        super().__init__()
        self.heads, self.how, self.scale = heads, how, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        if self.how == "einsum":
            q, k, v = (part.view(n, t, self.heads, -1) for part in self.qkv(x).chunk(3, -1))
            a = torch.softmax(torch.einsum("bqhd,bkhd->bhqk", q, k) * self.scale, -1)
            return self.proj(torch.einsum("bhqk,bkhd->bqhd", a, v).flatten(2))
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.how == "matmul":
            y = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(y.transpose(1, 2).reshape(n, t, -1))


class Transformer(nn.Module):
    """A class token, a position embedding, one block, a head; without norms, so that it is exact."""

    how = "matmul"

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 12))
        self.position = nn.Parameter(torch.randn(1, 5, 12))
        self.attention = Attention(12, 3, self.how)
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        x = x + self.attention(x)
        x = x + self.mlp(x)
        return self.head(x[:, 0])


@entry(images(), 0.45)
class MatmulTransformer(Transformer):
    how = "matmul"


@entry(images(), 0.45)
class EinsumTransformer(Transformer):
    how = "einsum"


@entry(images(), 0.45)
class FusedTransformer(Transformer):
    how = "fused"


@entry(images(2, 5, 12), 0.6, exact=False)
class EncoderLayer(nn.Module):
    """nn.TransformerEncoder, whose fast path hides its operations."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x))[:, 0])


@entry(images(2, 9, 12), 0.5, exact=False)
class Windows(nn.Module):
    """Swin's window attention: a table of relative positions looked up by an index buffer, cosine attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 16)
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.table = nn.Parameter(torch.randn(25, 4))
        self.register_buffer("index", torch.randint(25, (81,)))
        self.temperature = nn.Parameter(torch.ones(4, 1, 1))
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, t, c = x.shape
        y = torch.roll(self.norm(x), 4, 1)
        q, k, v = self.qkv(y).reshape(n, t, 3, 4, c // 4).permute(2, 0, 3, 1, 4)
        logits = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        bias = self.table[self.index].view(t, t, -1).permute(2, 0, 1).contiguous()
        y = (logits + bias.unsqueeze(0)).softmax(-1) @ v
        return self.head((x + self.proj(y.transpose(1, 2).reshape(n, t, c))).mean(1))


@entry(tokens(), 0.6)
class Words(nn.Module):
    """Embedding width and recurrent layers whose states the modules make."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.lstm = nn.LSTM(8, 6, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(12, 10, batch_first=True)
        self.rnn = nn.RNN(10, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.gru(self.lstm(self.embed(x))[0])[0])[0][:, -1])


@entry(images(2, 1, 6), 0.6)
class OneStep(nn.Module):
    """One time step alone: the recurrent weights meet nothing but zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, batch_first=True, proj_size=4)
        self.cell = nn.GRUCell(4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(self.lstm(x)[0][:, 0]))


class Noisy(nn.Module):
    """A linear layer with noise that is drawn in training alone."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight_mu = nn.Parameter(torch.randn(outputs, inputs) / inputs)
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), 0.1))
        self.bias_mu, self.bias_sigma = nn.Parameter(torch.zeros(outputs)), nn.Parameter(torch.ones(outputs))
        self.register_buffer("weight_epsilon", torch.randn(outputs, inputs))
        self.register_buffer("bias_epsilon", torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.linear(x, self.weight_mu, self.bias_mu)
        weight = self.weight_mu + self.weight_sigma * self.weight_epsilon
        return F.linear(x, weight, self.bias_mu + self.bias_sigma * self.bias_epsilon)


@entry(images(), 0.45)
class Rainbow(nn.Module):
    """Dueling, distributional, noisy."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten())
        self.value = nn.Sequential(Noisy(8 * 16, 16), nn.ReLU(), Noisy(16, 11))
        self.advantage = nn.Sequential(Noisy(8 * 16, 16), nn.ReLU(), Noisy(16, 4 * 11))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        value, advantage = self.value(h).view(-1, 1, 11), self.advantage(h).view(-1, 4, 11)
        return (value + advantage - advantage.mean(1, keepdim=True)).softmax(-1)


@entry(lambda: (images(2, 3, 8, 8)(), images(2, 5)()), 0.45)
class TwoInputs(nn.Module):
    """Two inputs, a dict of outputs, one of them nested."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.state = nn.Linear(5, 8)
        self.joint = nn.Linear(16, 12)
        self.actor, self.critic = nn.Linear(12, 4), nn.Linear(12, 1)

    def forward(self, frame: Tensor, state: Tensor) -> dict[str, Any]:
        x = torch.cat([torch.relu(self.conv(frame)).mean((2, 3)), torch.tanh(self.state(state))], -1)
        h = torch.relu(self.joint(x))
        return {"policy": torch.distributions.Categorical(logits=self.actor(h)), "values": [self.critic(h)]}


@entry(tokens(), 0.6)
class Tied(nn.Module):
    """The embedding is also the head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.hidden = nn.Linear(8, 16)
        self.back = nn.Linear(16, 8)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        return self.head(h + self.back(torch.relu(self.hidden(h))))


@entry(images(), 0.5)
class Twice(nn.Module):
    """One layer used at two places ties what enters and leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.same = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.same(torch.relu(self.same(self.stem(x))))))


@entry(images(), 0.5)
class WeightNormed(nn.Module):
    """Weight norm of both kinds, per output channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
        self.second = parametrizations.weight_norm(nn.Conv2d(8, 6, 3))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3)))


@entry(images(), 0.5)
class SpectralNormed(nn.Module):
    """Spectral norm: two buffers follow."""

    def __init__(self) -> None:
        super().__init__()
        self.first = parametrizations.spectral_norm(nn.Conv2d(3, 8, 3))
        self.second = parametrizations.spectral_norm(nn.Linear(8, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)).mean((2, 3)))))


@entry(images(2, 6, 8), 0.6, exact=False)
class Mixer(nn.Module):
    """Layers over tokens and layers over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 12)
        self.norm = nn.LayerNorm(12)
        self.over_tokens = nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.Linear(10, 6))
        self.over_channels = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12))
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.over_tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.over_channels(x)
        return self.head(x.mean(1))


@entry(images(), 0.5, exact=False)
class Norms(nn.Module):
    """Group, layer and RMS norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.group = nn.GroupNorm(3, 12)
        self.each = nn.GroupNorm(12, 12)
        self.inner = nn.Conv2d(12, 16, 3, padding=1)
        self.layer = nn.LayerNorm(16)
        self.rms = nn.RMSNorm(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(torch.relu(self.each(self.group(self.stem(x))))).permute(0, 2, 3, 1)
        return self.head(self.rms(self.layer(x)).mean((1, 2)))


@entry(images(), 0.6)
class Frozen(nn.Module):
    """A frozen stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3).requires_grad_(False)
        self.norm = nn.BatchNorm2d(8).requires_grad_(False)
        self.head = nn.Conv2d(8, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.stem(x))))


@entry(images(2, 3, 6, 6), 0.6)
class Axial(nn.Module):
    """Channels last, squeezes, unfolds and a matrix parameter used with @."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(3, 8) / 3)
        self.bias = nn.Parameter(torch.randn(8))
        self.inner = nn.Linear(8, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -1) @ self.matrix + self.bias
        x = torch.relu(x).reshape(x.shape[0], -1, x.shape[-1])
        return self.head(torch.tanh(self.inner(x)).amax(1, keepdim=True).squeeze(1))


@entry(images(2, 4), 0.55)
class LowRank(nn.Module):
    """A weight that is a product of two parameters, and sines of learned frequencies."""

    def __init__(self) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(6))
        self.left, self.right = nn.Parameter(torch.randn(12, 5)), nn.Parameter(torch.randn(5, 24))
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = torch.sin(x[..., None] * self.frequencies * math.pi).flatten(1)
        return self.head(torch.relu(F.linear(features, self.left @ self.right)))


@entry(images(1, 3, 8, 8), 0.6)
class OneChannel(nn.Module):
    """Convolutions with one channel are no depthwise ones."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(3, 1, 1)
        self.grow = nn.Conv2d(1, 8, 3)
        self.depthwise = nn.Conv2d(8, 16, 3, groups=8)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.depthwise(self.grow(self.squeeze(x)))))
