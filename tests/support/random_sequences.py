"""The stages of random networks that look at an image as a sequence: attention, recurrent layers, embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from random_blocks import SIZE, kind
from torch import Tensor, nn


def rows_of(x: Tensor) -> Tensor:
    """(N, C, 8, 8) as 8 tokens of C channels."""
    return x.mean(3).transpose(1, 2)


def image_of(tokens: Tensor) -> Tensor:
    """(N, 8, C) as (N, C, 8, 8)."""
    return tokens.transpose(1, 2).unsqueeze(3).expand(-1, -1, -1, SIZE)


@kind()
class Attention(nn.Module):
    """Heads of one projection, written with matmul or einsum; the scale is a number."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.heads = option + 1
        inner = self.heads * (width + 1)
        self.qkv, self.proj = nn.Linear(channels, 3 * inner, bias=False), nn.Linear(inner, channels)
        self.option, self.out = option, channels

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(2).transpose(1, 2)
        n, t, _ = y.shape
        if self.option == 1:
            q, k, v = (part.view(n, t, self.heads, -1) for part in self.qkv(y).chunk(3, -1))
            weights = torch.softmax(torch.einsum("bqhd,bkhd->bhqk", q, k) * 0.3, -1)
            z = torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2)
        else:
            q, k, v = self.qkv(y).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            z = ((q * 0.3 @ k.mT).softmax(-1) @ v).transpose(1, 2).reshape(n, t, -1)
        return x + self.proj(z).mT.reshape(n, -1, SIZE, SIZE)


@kind(smooth=False)
class Fused(nn.Module):
    """Torch's own attention: the function, whose scale depends on the width, and the module."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        inner = 2 * (width + 1)
        self.embed = nn.Linear(channels, inner)
        self.q, self.kv, self.proj = (nn.Linear(inner, n) for n in (inner, 2 * inner, inner))
        self.module = nn.MultiheadAttention(inner, 2, batch_first=option == 1, kdim=inner) if option else None
        self.token = nn.Parameter(torch.rand(1, 1, inner))
        self.batch_first, self.out = option == 1, inner

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(rows_of(x))
        y = torch.cat([self.token.expand(y.shape[0], -1, -1), y], 1)
        if self.module is None:
            q, (k, v) = self.q(y), self.kv(y).chunk(2, -1)
            q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in (q, k, v))
            z = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        else:
            s = y if self.batch_first else y.transpose(0, 1)
            z = self.module(s, s, s, need_weights=False)[0]
            z = z if self.batch_first else z.transpose(0, 1)
        return image_of((y + self.proj(z))[:, 1:])


@kind(exact=False)
class Crossed(nn.Module):
    """Learned queries, summed over, that attend to the image, and a product of two activations."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.rand(SIZE, width + 1))
        self.keys, self.values = nn.Linear(channels, width + 1, bias=False), nn.Linear(channels, width)
        self.option, self.out = option, width

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(2).transpose(1, 2)
        keys, values = self.keys(y), self.values(y)
        if self.option == 0:
            weights = torch.softmax(self.queries @ keys.transpose(1, 2), -1)
        elif self.option == 1:
            weights = torch.bmm(self.queries.expand(x.shape[0], -1, -1), keys.mT).sigmoid() / 8
        else:
            weights = torch.tanh(torch.einsum("qd,ntd->nqt", self.queries, keys))
        return (weights @ values).sum(1)[:, :, None, None].expand(-1, -1, SIZE, SIZE)


@kind()
class Recurrent(nn.Module):
    """LSTM, GRU and RNN over rows; stacked, in both directions, with a projection."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        if option == 0:
            self.cell = nn.LSTM(
                channels, width + 1, num_layers=2, batch_first=True, proj_size=width if width > 3 else 0
            )
        elif option == 1:
            self.cell = nn.GRU(channels, width, batch_first=True, bidirectional=True)
        else:
            self.cell = nn.RNN(channels, width, num_layers=2, nonlinearity="relu", bias=False)
        self.time_first = option == 2
        self.out = {0: width if width > 3 else width + 1, 1: 2 * width, 2: width}[option]

    def forward(self, x: Tensor) -> Tensor:
        rows = rows_of(x)
        y = self.cell(rows.transpose(0, 1))[0].transpose(0, 1) if self.time_first else self.cell(rows)[0]
        return image_of(y)


@kind()
class Cells(nn.Module):
    """Recurrent cells with states that the block makes, two steps of them."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.cell = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)[option](channels, width)
        self.initial = nn.Parameter(torch.rand(width)) if option == 2 else None
        self.option, self.out = option, width

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.mean((2, 3)), x.amax((2, 3))
        if self.option == 0:
            y = self.cell(second, self.cell(first))[0]
        elif self.initial is None:
            y = self.cell(second, self.cell(first))
        else:
            y = self.cell(second, self.cell(first, self.initial.expand(x.shape[0], -1)))
        return y[:, :, None, None].expand(-1, -1, SIZE, SIZE)


@kind()
class Embedded(nn.Module):
    """Embeddings of positions, added, multiplied in or put beside."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.table = nn.Embedding(SIZE, width if option == 2 else channels)
        self.register_buffer("positions", torch.arange(SIZE))
        self.option, self.out = option, channels + (width if option == 2 else 0)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.table(self.positions).t()[None, :, :, None]
        if self.option == 0:
            return x + rows
        return x * rows if self.option == 1 else torch.cat([x, rows.expand(x.shape[0], -1, -1, SIZE)], 1)


@kind()
class Mixed(nn.Module):
    """Linear layers over tokens and over channels."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.over_tokens = nn.Sequential(nn.Linear(SIZE, width), nn.GELU(), nn.Linear(width, SIZE))
        self.over_channels = nn.Sequential(nn.Linear(channels, width), nn.GELU(), nn.Linear(width, channels))
        self.out = channels

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.over_tokens(x)
        return x + self.over_channels(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@kind()
class Unfolded(nn.Module):
    """Patches as rows of a matrix, and a linear layer grown into channels."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.option, self.out = option, width + 1
        self.patch = nn.Linear(channels * 4, self.out)
        self.grow = nn.Linear(channels, self.out * SIZE * SIZE)

    def forward(self, x: Tensor) -> Tensor:
        if self.option == 0:
            return self.grow(x.mean((2, 3))).view(x.shape[0], -1, SIZE, SIZE) + self.patch.bias[:, None, None]
        if self.option == 1:
            patches = F.unfold(x, 2, stride=2).transpose(1, 2)
        else:
            patches = x.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        small = self.patch(patches).mT.reshape(x.shape[0], -1, SIZE // 2, SIZE // 2)
        return F.interpolate(small, scale_factor=2)
