"""More small networks for the tracer: one operation or way of writing it each, all exact, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm
from tracing_zoo import Entry, images, tokens

LAYER_ZOO: dict[str, Entry] = {}


def exact(*shape: int, parameters: float = 0.7, inputs: Callable[[], Any] | None = None) -> Any:
    def add(module: type[nn.Module]) -> type[nn.Module]:
        LAYER_ZOO[module.__name__] = Entry(module, inputs or images(*shape), parameters)
        return module

    return add


@exact()
class Arithmetic(nn.Module):
    """Subtraction, division, extremes, fused products, interpolation between two branches, comparisons."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.register_buffer("scale", torch.rand(1, 8, 1, 1) + 0.5)
        self.shift = nn.ParameterList([nn.Parameter(torch.randn(8, 1, 1))])
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        c = torch.addcmul(a - b, a, b, value=0.5) * self.scale
        c = torch.lerp(c, torch.minimum(a, b), 0.3) + torch.maximum(a, -b)
        c = c / (1.0 + a * a) + torch.where(a.abs() > b, a, b) * self.shift[0]
        return self.head(torch.addcdiv(c, a, b.square() + 1.0).clamp(-2, 2))


@exact(2, 3, 8, 8)
class Parts(nn.Module):
    """split, tensor_split, narrow over space, index_select, gather over positions, unbind, flip over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mid = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(8, 12, 1)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        a, b = torch.split(y, y.shape[1] // 2, 1)
        y = self.mid(a * torch.tanh(b).flip(2))
        y = y.narrow(2, 1, 6).index_select(3, torch.arange(1, 7)).flip(1)
        index = torch.zeros(*y.shape[:3], 2, dtype=torch.long)
        y = y + y.gather(3, index).sum(3, keepdim=True)
        first, second, third = torch.tensor_split(y, 3, 1)
        return self.head(torch.stack((first, second, third)).unbind(0)[0] + second * third)


@exact()
class Pools(nn.Module):
    """Pools that return positions, fractional, of powers and adaptive; all kinds of resampling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mid = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 10, 1)
        self.head = nn.Linear(10 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, where = F.max_pool2d(torch.relu(self.stem(x)), 2, return_indices=True)
        y = self.mid(F.max_unpool2d(y, where, 2))
        y = F.interpolate(y, size=12, mode="bicubic") + F.interpolate(y, size=12, mode="nearest")
        y = F.lp_pool2d(y.abs() + 0.0, 2, 2)
        return self.head(F.adaptive_avg_pool2d(y, 2).flatten(1))


@exact(2, 4, 9, parameters=0.65)
class DepthwiseSignals(nn.Module):
    """One dimension: depthwise, grouped and grouped transposed convolutions, batch norm, adaptive pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(4, 12, 1),
            nn.Conv1d(12, 12, 3, padding=1, groups=12),
            nn.BatchNorm1d(12),
            nn.GELU(),
            nn.Conv1d(12, 18, 3, groups=3),
            nn.ConvTranspose1d(18, 12, 2, groups=3),
            nn.InstanceNorm1d(12, affine=True),
            nn.AdaptiveAvgPool1d(2),
            nn.Flatten(),
            nn.Linear(24, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@exact(1, 2, 4, 6, 6, parameters=0.65)
class DepthwiseVolumes(nn.Module):
    """Three dimensions: depthwise and grouped transposed convolutions, batch norm, adaptive pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(2, 8, 1),
            nn.Conv3d(8, 8, 3, padding=1, groups=8),
            nn.BatchNorm3d(8),
            nn.ReLU(),
            nn.ConvTranspose3d(8, 12, 2, groups=2),
            nn.PReLU(12),
            nn.AdaptiveMaxPool3d(1),
            nn.Flatten(),
            nn.Linear(12, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@exact(parameters=0.65)
class ShuffleModules(nn.Module):
    """nn.ChannelShuffle, nn.PixelShuffle, nn.PixelUnshuffle between grouped convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 1),
            nn.ChannelShuffle(4),
            nn.Conv2d(16, 32, 1, groups=4),
            nn.PixelShuffle(2),
            nn.Conv2d(8, 6, 3),
            nn.PixelUnshuffle(2),
            nn.Conv2d(24, 3, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@exact(parameters=0.6)
class MaxoutByDivision(nn.Module):
    """The same with the count of pairs computed from the width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        n, c, h, w = y.shape
        return self.head(y.reshape(n, c // 2, 2, h, w).amax(2))


@exact(parameters=0.6)
class Maxout(nn.Module):
    """Neighbouring channels compete: they go in pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.head(y.view(y.shape[0], -1, 2, *y.shape[2:]).amax(2))


@exact()
class Products(nn.Module):
    """einsum with a parameter and of two activations, bmm, matrices of channels by channels."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(10, 3) / 3)
        self.a, self.b = nn.Conv2d(10, 6, 1), nn.Conv2d(10, 8, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(torch.einsum("nchw,oc->nohw", x, self.mix))
        a, b = self.a(y), self.b(y)
        gram = torch.einsum("nchw,nkhw->nck", a, b)
        back = torch.bmm(gram, b.flatten(2))
        return self.head(back.mean(2))


@exact(2, 5, 6)
class LearnedState(nn.Module):
    """A recurrent layer that starts from a learned state, and one whose state is kept through a mask of ends."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, batch_first=True)
        self.h, self.c = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 1, 8))
        self.cell = nn.LSTMCell(8, 10)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        y, _ = self.lstm(x, (self.h.expand(1, n, -1).contiguous(), self.c.expand(1, n, -1).contiguous()))
        h = c = x.new_zeros(n, self.cell.hidden_size)
        for step in range(y.shape[1]):
            alive = (x[:, step, :1] < 1.0).to(x.dtype)
            h, c = self.cell(y[:, step], (h * alive, c * alive))
        return self.head(h)


@exact(2, 3, 8, 8, parameters=0.6)
class ImplicitQuantiles(nn.Module):
    """IQN: cosines of drawn fractions, embedded and multiplied with the features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.embed = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(6, 8 * 9)
        self.hidden, self.head = nn.Linear(8 * 9, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        features = torch.relu(self.conv(x)).flatten(1)
        fractions = torch.linspace(0.1, 0.9, 5, dtype=x.dtype).view(5, 1)
        cosines = torch.cos(fractions * torch.arange(6, dtype=x.dtype) * torch.pi)
        joint = features.unsqueeze(1) * torch.relu(self.embed(cosines)).unsqueeze(0)
        return self.head(torch.relu(self.hidden(joint))).mean(1)


@exact(inputs=tokens(), parameters=0.75)
class Bags(nn.Module):
    """EmbeddingBag and the cosine of two embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(10, 8, mode="sum")
        self.words = nn.Embedding(10, 8)
        self.hidden, self.head = nn.Linear(8, 12), nn.Linear(13, 3)

    def forward(self, x: Tensor) -> Tensor:
        bag, word = self.bag(x), self.words(x[:, 0])
        alike = F.cosine_similarity(bag, word, dim=1)
        hidden = torch.relu(self.hidden(F.normalize(bag, dim=1)))
        return self.head(torch.cat([hidden, alike[:, None]], 1))


@exact(parameters=0.6)
class OldSpectralNorm(nn.Module):
    """The hook-based spectral norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = spectral_norm(nn.Conv2d(3, 8, 3))
        self.second = spectral_norm(nn.Linear(8, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)).mean((2, 3)))))


@exact(parameters=0.6)
class Unfolded(nn.Module):
    """A convolution written with unfold, put back with fold."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8 * 9, 12), nn.Conv2d(12, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))
        columns = F.unfold(y, 3, padding=1)
        y = F.fold(columns, y.shape[2:], 3, padding=1)
        columns = F.unfold(y, 3, padding=1).transpose(1, 2)
        return self.head(torch.relu(self.inner(columns)).transpose(1, 2).unflatten(2, (8, 8)))
