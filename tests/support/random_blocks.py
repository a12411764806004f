"""The stages of random networks: maps from (N, C, 8, 8) to (N, C', 8, 8), one for every way to treat channels.

A block is made of the channels that enter it, a width and an option of 0, 1 or 2 that it reads as it likes; its
attribute ``out`` says how many channels leave it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

SIZE = 8


@dataclass(frozen=True)
class Kind:
    """A kind of block.

    Attributes:
        build: (channels, width, option) -> the block.
        exact: whether the sliced network equals the masked one.
        told: whether the tracer knows that it does: sums over channels are exact only because zeros come in.
        smooth: whether training goes on as if masked, to 1e-9, with any optimizer: nothing is drawn at random, and no
            parameter has a gradient of pure noise (a bias in front of a norm), whose sign some optimizers follow.
    """

    build: Callable[[int, int, int], nn.Module]
    exact: bool
    told: bool
    smooth: bool


ALL_KINDS: dict[str, Kind] = {}


def kind(exact: bool = True, smooth: bool = True, told: bool = True) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Enter a class into the table of kinds, under its name."""

    def add(block: type[nn.Module]) -> type[nn.Module]:
        ALL_KINDS[block.__name__] = Kind(block, exact, exact and told, exact and smooth)
        return block

    return add


@kind()
class Conv(nn.Module):
    """Convolutions with and without a bias, dilated, with circular padding."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        mode = ("zeros", "circular", "reflect")[option]
        self.conv = nn.Conv2d(
            channels, width, 3, padding=1 + option // 2, dilation=1 + option // 2, bias=option > 0, padding_mode=mode
        )
        self.out = width

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@kind()
class Conv1d(nn.Module):
    """Convolutions over one axis, also transposed and grouped."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(channels, 2 * width, 3, padding=1)
        layer = nn.ConvTranspose1d if option == 1 else nn.Conv1d
        self.second = layer(2 * width, 2 * width, 3, padding=1, groups=2 if option == 2 else 1)
        self.out = 2 * width

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.leaky_relu(self.first(x.flatten(2)))).unflatten(2, (SIZE, SIZE))


@kind()
class Conv3d(nn.Module):
    """Convolutions over volumes, also transposed and depthwise."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(channels, width, (1, 3, 3), padding=(0, 1, 1))
        layer = nn.ConvTranspose3d if option == 1 else nn.Conv3d
        self.second = layer(width, width, 3, padding=1, groups=width if option == 2 else 1)
        self.out = width

    def forward(self, x: Tensor) -> Tensor:
        volume = torch.stack([x, x.flip(3)], 2)
        return F.avg_pool3d(self.second(F.elu(self.first(volume))), (2, 1, 1)).squeeze(2)


@kind()
class Transposed(nn.Module):
    """Transposed convolutions, grouped and depthwise, and back by a stride."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 2 * width, 1)
        self.up = nn.ConvTranspose2d(2 * width, 2 * width, 2, stride=2, groups=(1, 2, 2 * width)[option])
        self.down = nn.Conv2d(2 * width, width, 2, stride=2)
        self.out = width

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.tanh(self.up(torch.relu(self.first(x)))))


@kind()
class Depthwise(nn.Module):
    """Depthwise with a multiplier."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.out = channels * (option % 2 + 1)
        self.conv = nn.Conv2d(channels, self.out, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@kind()
class Grouped(nn.Module):
    """A grouped convolution between others."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        groups = option + 2
        self.wide = nn.Conv2d(channels, width * groups, 1)
        self.grouped = nn.Conv2d(width * groups, 2 * groups, 3, padding=1, groups=groups)
        self.out = 2 * groups

    def forward(self, x: Tensor) -> Tensor:
        return self.grouped(torch.relu(self.wide(x)))


@kind(smooth=False)
class Norm(nn.Module):
    """Batch and instance norms, with and without parameters and statistics, then an activation."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.norm = (
            nn.BatchNorm2d(channels),
            nn.InstanceNorm2d(channels, affine=True, track_running_stats=True),
            nn.BatchNorm2d(channels, affine=False),
        )[option]
        self.act = (nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.Tanh())[(width + option) % 5]
        self.out = channels

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(x))


@kind(exact=False)
class Populations(nn.Module):
    """Layer, group and RMS norms, with axes in either order."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.option = option
        self.wide = nn.Conv2d(channels, 2 * width, 1)
        self.norm = (nn.LayerNorm([2 * width, SIZE, SIZE]), nn.GroupNorm(2, 2 * width), nn.RMSNorm(2 * width))[option]
        self.out = 2 * width

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(x)
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if self.option == 2 else self.norm(x)


@kind(exact=False)
class OverChannels(nn.Module):
    """Softmax, a mean and a maximum over the channels."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 1)
        self.option, self.out = option, width

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.option == 0:
            return x.softmax(1)
        return x - x.mean(1, keepdim=True) if self.option == 1 else x / (x.amax(1, keepdim=True).abs() + 1)


@kind(told=False)
class Normalized(nn.Module):
    """Unit vectors over channels, and a softmax over space."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 1)
        self.option, self.out = option, width

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.option == 0:
            return F.normalize(x + x.square(), dim=1, eps=1e-3)
        return x.flatten(2).softmax(2).view_as(x) * 8 if self.option == 1 else x / (1 + x.square().sum(1, keepdim=True))


@kind(smooth=False)
class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width) if option > 1 else nn.Identity()
        self.conv2 = nn.Conv2d(width, channels, 3, padding=1)
        self.out = channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(torch.relu(self.norm(self.conv1(torch.relu(x)))))
        y += x
        return y


@kind()
class Dense(nn.Module):
    """Concatenation with its own input, as in DenseNet."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(channels + i * width, width, 3, padding=1) for i in range(option + 1))
        self.out = channels + width * (option + 1)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(torch.relu(layer(torch.cat(features, 1))))
        return torch.cat(features, dim=-3)


@kind()
class Gate(nn.Module):
    """Squeeze and excitation, in convolutions or in linear layers."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.flat = option > 0
        self.down = nn.Linear(channels, width) if self.flat else nn.Conv2d(channels, width, 1)
        self.up = nn.Linear(width, channels) if self.flat else nn.Conv2d(width, channels, 1)
        self.out = channels

    def forward(self, x: Tensor) -> Tensor:
        if self.flat:
            return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))[..., None, None]
        return x * F.hardsigmoid(self.up(torch.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


@kind()
class Branches(nn.Module):
    """Two branches that meet in a sum, a product or a choice."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.left = nn.Conv2d(channels, width, 1)
        self.right = nn.Conv2d(channels, width, 3, padding=1)
        self.option, self.out = option, width

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.left(x), self.right(x)
        if self.option == 0:
            return (a - b) * (a + 0.5)
        if self.option == 1:
            return torch.where(b > 0, a, torch.maximum(b, a * 0.1)).clamp(-3, 3)
        return torch.stack([a, b, a * b], 1).mean(1).masked_fill(a > 2, 2.0)


@kind()
class Splits(nn.Module):
    """Parts of one tensor, each with a layer of its own or gating the other."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, 2 * width, 1)
        self.left, self.right = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 3, padding=1)
        self.option, self.out = option, width if option == 1 else 2 * width

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(x)
        if self.option == 0:
            a, b = x.chunk(2, 1)
            return torch.cat([self.left(a), torch.relu(self.right(b))], 1)
        if self.option == 1:
            return F.glu(x, 1)
        a, b = x.unflatten(1, (2, -1)).unbind(1)
        return torch.stack((self.left(b), self.right(a)), 1).flatten(1, 2)


@kind()
class Moves(nn.Module):
    """Rolls, flips, pads, crops, index lists and repetitions."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 1)
        self.option, self.out = option, width * (2 if option == 2 else 1)
        self.register_buffer("order", torch.tensor([3, 1, 2, 0, 4, 7, 6, 5]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.option == 0:
            return F.pad(torch.roll(x, (1, 3), (2, 3)).flip(-1), (1, 0, 0, 2))[:, :, 2:, 1:]
        if self.option == 1:
            return x.index_select(2, self.order)[:, :, :, self.order].transpose(2, 3).contiguous()
        return torch.cat([x.repeat(1, 2, 1, 1)[:, :, ::2], x.flip(1).tile(1, 2, 1, 1)[:, :, 1::2]], 2)


@kind()
class Rolled(nn.Module):
    """Channels moved among themselves: a roll, a flip and an index that the code computes."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.conv, self.after = nn.Conv2d(channels, width, 1), nn.Conv2d(width, width, 1)
        self.option, self.out = option, width

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.option == 0:
            x = x + torch.roll(x, 1, 1)
        elif self.option == 1:
            x = x * x.flip(1)
        else:
            x = x[:, torch.arange(x.shape[1]).flip(0)]
        return self.after(torch.relu(x))


@kind()
class Shuffles(nn.Module):
    """Pixel shuffle and unshuffle, channel shuffle, space to depth by views."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, 4 * width, 1, groups=1)
        self.mid = nn.Conv2d(width if option == 0 else 4 * width, 4, 1, groups=1 if option == 0 else 2)
        self.after = nn.Conv2d(16 if option == 0 else 4, width, 1)
        self.option, self.out = option, width

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(x)
        if self.option == 0:
            return self.after(F.pixel_unshuffle(self.mid(F.pixel_shuffle(x, 2)), 2))
        n, c, h, w = x.shape
        if self.option == 1:
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        else:
            x = F.channel_shuffle(x, 2)
        return self.after(self.mid(x))


@kind()
class Resized(nn.Module):
    """Pools, strides and interpolation, with a skip connection as in a U-Net."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, width, 3, padding=1)
        self.option, self.out = option, channels + width

    def forward(self, x: Tensor) -> Tensor:
        small = (F.max_pool2d, F.avg_pool2d, lambda y, s: F.adaptive_max_pool2d(y, SIZE // s))[self.option](x, 2)
        mode = ("nearest", "bilinear", "bicubic")[self.option]
        return torch.cat([F.interpolate(self.inner(small), scale_factor=2, mode=mode), x], 1)


@kind()
class Affine(nn.Module):
    """Bare parameters: a layer scale, a position embedding, PReLU per channel; a buffer per channel."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(channels, 1, 1) + 0.5)
        self.position = nn.Parameter(torch.rand(1, channels, SIZE, SIZE)) if option == 1 else None
        self.act = nn.PReLU(channels) if option == 2 else nn.Identity()
        self.register_buffer("offset", torch.rand(1, channels, 1, 1))
        self.out = channels

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(x * self.gamma - self.offset)
        return x if self.position is None else x + self.position


@kind()
class Products(nn.Module):
    """Bare matrices: einsum, @ and a weight that is a product of two."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.left, self.right = nn.Parameter(torch.rand(channels, 5)), nn.Parameter(torch.rand(5, width))
        self.option, self.out = option, width

    def forward(self, x: Tensor) -> Tensor:
        if self.option == 0:
            return torch.einsum("nchw,cr,rd->ndhw", x, self.left, self.right)
        if self.option == 1:
            return (torch.tanh(x.movedim(1, -1) @ self.left) @ self.right).movedim(-1, 1)
        return F.conv2d(x, (self.left @ self.right).t()[:, :, None, None])


@kind()
class UsedTwice(nn.Module):
    """One layer at two places, or one weight in two layers."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 1)
        self.same = nn.Conv2d(width, width, 3, padding=1)
        self.other = nn.Conv2d(width, width, 3, padding=1)
        if option:
            self.other.weight = self.same.weight
        self.option, self.out = option, width

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.same(torch.relu(self.first(x))))
        return self.other(x) if self.option else self.other(self.same(x))


@kind()
class Frozen(nn.Module):
    """A layer that is not trained."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1).requires_grad_(False)
        self.out = width

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


@kind(exact=False)
class Parametrized(nn.Module):
    """Weight norm (a population over the inputs), spectral norm, orthogonal maps."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, width, 3, padding=1)
        self.conv = parametrizations.spectral_norm(conv) if option == 1 else parametrizations.weight_norm(conv)
        self.out = width

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


@kind()
class Foreign(nn.Module):
    """Operations that count on the order or the number of channels: these keep their width."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.before, self.after = nn.Conv2d(channels, width, 1), nn.Conv2d(width, width, 1)
        self.option, self.out = option, width

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        if self.option == 0:
            x = torch.sort(x, dim=1).values
        elif self.option == 1:
            x = x.cumsum(1)
        else:
            x = torch.fft.rfft2(x, dim=(1, 2)).abs()[:, :SIZE, : SIZE // 2 + 1]
            x = F.interpolate(x, size=(SIZE, SIZE))
        return self.after(x)
