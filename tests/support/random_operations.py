"""More stages of random networks: what code does to activations beside layers, from writes in place to routing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from random_blocks import SIZE, kind
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def slope(x: Tensor) -> Tensor:
    """(8, 8): another number at every position."""
    return torch.linspace(-1.0, 1.0, SIZE * SIZE, dtype=x.dtype).exp().roll(5).view(SIZE, SIZE)


@kind()
class Written(nn.Module):
    """Tensors made empty and written into piece by piece, also behind the back of a view."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.upper, self.lower = nn.Conv2d(channels, width, 1), nn.Conv2d(channels, width, 1)
        self.option, self.out = option, 2 * width if option == 2 else width

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.upper(x), self.lower(x)
        if self.option == 0:
            y = torch.empty_like(a)
            y[:, :, :3].copy_(a[:, :, 3:6])
            y[:, :, 3:] = b[:, :, 3:]
            return y
        if self.option == 1:
            y = a.new_zeros(a.shape)
            first = y[:, :, :1]
            y.copy_(a)
            return torch.tanh(b) * first
        y = x.new_empty(len(x), 2 * a.shape[1], SIZE, SIZE)
        y[:, : a.shape[1]] = a
        y[:, a.shape[1] :] = b
        return y


@kind()
class Overwritten(nn.Module):
    """Operations in place: sums, scales, rows set to a number, a mask."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(channels, width, 1), nn.Conv2d(channels, width, 1)
        self.option, self.out = option, width

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.option == 0:
            y.mul_(0.5).add_(self.other(x), alpha=2.0).relu_()
        elif self.option == 1:
            y[:, :, 0] = 0.0
            y[:, :, :, 1] += self.other(x)[:, :, :, 2]
            y[y < -1] = 0.0
        else:
            y = y.index_add(2, torch.tensor([1, 0, 2]), self.other(x)[:, :, :3])
            y = y.scatter(3, torch.zeros(1, 1, 1, 1, dtype=torch.long).expand(*y.shape[:3], 1), y[..., 1:2] * 2)
        return y


@kind(told=False)
class Bilinear(nn.Module):
    """Products of activations over positions: channels by channels."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Conv2d(channels, width, 1) for _ in range(3))
        self.head = nn.Conv2d(width, 3, 1)
        self.option, self.out = option, 3 if option == 0 else width

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2) for layer in (self.q, self.k, self.v))
        if self.option == 0:
            y = torch.bmm(q, k.mT).div(SIZE).tanh() @ v
            return self.head(y.unflatten(2, (SIZE, SIZE)))
        if self.option == 1:
            y = torch.einsum("ncs,nds,ndt->nct", q, k, v) / SIZE**2
        else:
            y = torch.baddbmm(v, torch.sigmoid(q.mean(2, keepdim=True)), k.sum(1, keepdim=True))
        return y.unflatten(2, (SIZE, SIZE))


@kind()
class Outer(nn.Module):
    """Every channel of one branch times every channel of another."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(channels, 2, 1), nn.Conv2d(channels, width, 1)
        self.after = nn.Conv2d(2 * width, width, 1)
        self.option, self.out = option, width if option else 2 * width

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.left(x), torch.tanh(self.right(x))
        if self.option == 0:
            return (a[:, :, None] * b[:, None]).flatten(1, 2)
        if self.option == 1:
            return self.after(torch.einsum("nahw,nbhw->nabhw", a, b).reshape(len(x), -1, SIZE, SIZE))
        return self.after((a.unsqueeze(2) + b.unsqueeze(1)).flatten(1, 2))


@kind()
class Uneven(nn.Module):
    """Parts of unequal widths, single channels and every other one, picked by numbers in the code."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width + 2, 1)
        self.one, self.rest = nn.Conv2d(1, 3, 1), nn.Conv2d(width + 1, width, 1)
        self.option = option
        self.out = (width + 3, (width + 2) // 2 + 1, width + 2)[option]

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.option == 0:
            a, b = torch.split(y, [1, y.shape[1] - 1], 1)
            return torch.cat([self.one(a), torch.relu(self.rest(b))], 1)
        if self.option == 1:
            return torch.cat([y[:, 1::2], y[:, :1]], 1)
        return torch.relu(y) * y[:, 0].unsqueeze(1) + y.narrow(1, 1, 1)


@kind(told=False)
class Wider(nn.Module):
    """Shortcuts that add channels of zeros, and channels taken pairwise."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, (channels + 2 * width, 2 * width, 2 * width)[option], 3, padding=1)
        self.width, self.option, self.out = width, option, (channels + 2 * width, width, width)[option]

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.option == 0:
            return y + F.pad(x, (0, 0, 0, 0, self.width, self.width))
        y = y.view(len(x), -1, 2, SIZE, SIZE) if self.option == 1 else y.unflatten(1, (2, -1)).transpose(1, 2)
        return y.amax(2) if self.option == 1 else y.sum(2)


@kind(told=False)
class Dynamic(nn.Module):
    """Weights that the network makes, and mixtures of learned ones."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.make = nn.Linear(channels, 3 * width if option == 0 else 4)
        self.reduce = nn.Conv2d(channels, 3, 1)
        self.experts = nn.Parameter(torch.rand(4, width, channels, 3, 3))
        self.width, self.option, self.out = width, option, width

    def forward(self, x: Tensor) -> Tensor:
        gates = torch.sigmoid(self.make(x.mean((2, 3))))
        n, c, h, w = x.shape
        if self.option == 0:
            return torch.einsum("nchw,ndc->ndhw", self.reduce(x), gates.view(n, -1, 3))
        if self.option == 1:
            weights = torch.einsum("ne,edcij->ndcij", gates, self.experts)
            y = F.conv2d(x.reshape(1, n * c, h, w), weights.flatten(0, 1), padding=1, groups=n)
            return y.view(n, -1, h, w)
        return sum(gates[:, i, None, None, None] * F.conv2d(x, self.experts[i], padding=1) for i in range(4))


@kind(smooth=False)
class Picked(nn.Module):
    """Positions that the network itself picks: gather, topk, sorting over space, unpooling, sampling on a grid.

    A slope is added in front, as what comes in may be the same at all positions: rounding would pick among equals.
    """

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.conv, self.scores = nn.Conv2d(channels, width, 1), nn.Conv2d(channels, 1, 1)
        self.option, self.out = option, width

    def forward(self, x: Tensor) -> Tensor:
        x = x + slope(x)
        y = self.conv(x)
        if self.option == 0:
            order = self.scores(x).flatten(2).topk(SIZE * SIZE, 2).indices
            return torch.gather(y.flatten(2), 2, order.expand(-1, y.shape[1], -1)).view_as(y)
        if self.option == 1:
            small, where = F.max_pool2d(y, 2, return_indices=True)
            return F.max_unpool2d(small, where, 2) + torch.sort(y, dim=3).values
        grid = F.affine_grid(
            self.scores(x).mean((1, 2, 3))[:, None, None] + torch.eye(2, 3).to(x), list(y.shape), False
        )
        return F.grid_sample(y, grid, align_corners=False)


@kind(smooth=False)
class Spatial(nn.Module):
    """Statistics over space, of every kind, put back as gates."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.conv, self.option, self.out = nn.Conv2d(channels, width, 1), option, width

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x + slope(x))
        if self.option == 0:
            return y * torch.logsumexp(y, (2, 3), keepdim=True) + y.std((2, 3), keepdim=True)
        if self.option == 1:
            return y.cumsum(2) / SIZE + torch.linalg.vector_norm(y, dim=3, keepdim=True) * y.argmax(3, keepdim=True)
        values, _ = y.flatten(2).median(2)
        return y - values[..., None, None] + F.adaptive_avg_pool2d(y, (2, 1)).repeat_interleave(4, 2)


@kind()
class Modulated(nn.Module):
    """FiLM: a scale and a shift that a linear layer makes from another branch, and a stack of gates."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1)
        self.film = nn.Linear(channels, (2 + (option == 2)) * width)
        self.option, self.out = option, width

    def forward(self, x: Tensor) -> Tensor:
        y, made = self.conv(x), self.film(x.mean((2, 3)))
        if self.option == 2:
            r, z, n = made.view(len(x), 3, -1, 1, 1).unbind(1)
            return torch.lerp(y * torch.sigmoid(r), torch.tanh(n), torch.sigmoid(z))
        scale, shift = made.chunk(2, -1) if self.option else made.tensor_split(2, dim=1)
        return torch.addcmul(shift[..., None, None], y, 1 + scale[:, :, None, None])


@kind()
class TiedBack(nn.Module):
    """One weight there and back: an autoencoder, a head that is the embedding, a transposed matrix."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.table = nn.Embedding(5, width)
        self.inner = nn.Conv2d(width, width, 1)
        self.option, self.out = option, 5 if option == 1 else channels

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x))
        if self.option == 0:
            return F.conv_transpose2d(torch.tanh(self.inner(y)), self.conv.weight, padding=1)
        if self.option == 1:
            y = y + self.table(torch.arange(SIZE) % 5).t()[None, :, :, None]
            return F.linear(y.movedim(1, -1), self.table.weight).movedim(-1, 1)
        return torch.einsum("nohw,oc->nchw", y, self.conv.weight.sum((2, 3)))


@kind()
class Checkpointed(nn.Module):
    """Parts run again in the backward pass, parts without a gradient, lists and dictionaries of parameters."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(channels, width, 1), nn.Tanh(), nn.Conv2d(width, width, 3, padding=1))
        self.scales = nn.ParameterList([torch.rand(width, 1, 1) for _ in range(2)])
        self.shifts = nn.ParameterDict({"a": torch.rand(width, 1, 1)})
        self.option, self.out = option, width

    def forward(self, x: Tensor) -> Tensor:
        if self.option == 0:
            y = checkpoint(self.inner, x, use_reentrant=False)
        elif self.option == 1:
            with torch.no_grad():
                y = self.inner(x)
        else:
            y = torch.vmap(self.inner)(x.unsqueeze(1)).squeeze(1)
        return y * self.scales[0] + self.scales[1].detach() * self.shifts["a"]


@kind(exact=False)
class Responses(nn.Module):
    """Norms among neighbouring channels, of weights, and of groups of one channel."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * width, 3, padding=1)
        self.norm = nn.LocalResponseNorm(3) if option == 0 else nn.GroupNorm(2 * width, 2 * width)
        self.option, self.out = option, 2 * width

    def forward(self, x: Tensor) -> Tensor:
        if self.option == 2:
            weight = self.conv.weight
            mean, var = weight.mean((1, 2, 3), keepdim=True), weight.var((1, 2, 3), keepdim=True)
            return F.conv2d(x, (weight - mean) / (var + 1e-3).sqrt(), self.conv.bias, padding=1)
        return self.norm(self.conv(x))


@kind(smooth=False)
class OtherNorms(nn.Module):
    """Batch and instance norms over sequences and volumes."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 1)
        self.norm = (nn.BatchNorm1d(width), nn.InstanceNorm1d(width, affine=True), nn.BatchNorm3d(width))[option]
        self.option, self.out = option, width

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y.unsqueeze(2)).squeeze(2) if self.option == 2 else self.norm(y.flatten(2)).view_as(y)


@kind(told=False)
class Compared(nn.Module):
    """Similarities and distances between positions, over all channels."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(channels, width, 1), nn.Conv2d(channels, width, 1)
        self.option, self.out = option, SIZE if option == 1 else 1

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.left(x), self.right(x)
        if self.option == 0:
            return F.cosine_similarity(a, b, dim=1).unsqueeze(1)
        if self.option == 1:
            return torch.cdist(a.mean(3).mT, b.mean(3).mT).unsqueeze(3).expand(-1, -1, -1, SIZE)
        return (a * b).sum(1, keepdim=True) - (a - b).square().sum(1, keepdim=True).sqrt()


@kind(smooth=False)
class Foreigner(nn.Module):
    """Complex parameters, which keep their width, a bilinear form, and what a table of rows looks up."""

    def __init__(self, channels: int, width: int, option: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 1)
        self.phases = nn.Parameter(torch.rand(width, 1, 1, dtype=torch.cfloat))
        self.form = nn.Bilinear(width, width, 4)
        self.bag = nn.EmbeddingBag(6, width, mode="mean")
        self.option, self.out = option, 4 if option == 1 else width

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.option == 0:
            return (y * self.phases).real + (y * self.phases).imag
        rows = y.movedim(1, -1)
        if self.option == 1:
            return self.form(rows, torch.tanh(rows)).movedim(-1, 1)
        return y * self.bag(torch.tensor([[0, 2, 5]]))[:, :, None, None]
