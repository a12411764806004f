"""Sizes that every block of a network keeps are found once for all of them."""

from __future__ import annotations

import copy

import torch
from masked_networks import masked_copy
from torch import Tensor, nn

import gsprune


class Block(nn.Module):
    """Attention that views with the sizes it was made with."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size, self.inner = heads, width // heads, width
        self.scale = self.size**-0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, self.size).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q * self.scale @ k.transpose(-2, -1)).softmax(-1) @ v
        return x + self.proj(y.transpose(1, 2).reshape(n, t, self.inner))


def test_fifteen_blocks_with_stored_sizes_are_pruned() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 24), *(Block(24, 2) for _ in range(15)), nn.Linear(24, 3)).double()
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert report.params_after < 0.3 * report.params_before
    assert {(block.size, block.inner) for block in model[1:-1]} == {(6, 12)}
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-8, atol=1e-8)


def test_a_size_with_one_head_that_fits_two_axes_follows_the_right_one_in_blocks_with_two_heads() -> None:
    torch.manual_seed(0)
    blocks = [Block(20, 2) for _ in range(8)]
    model = nn.Sequential(nn.Linear(5, 10), Block(10, 1), nn.Linear(10, 20), *blocks, nn.Linear(20, 3)).double()
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.25, example_inputs=x)
    assert model[2].out_features == 15
    assert {(block.size, block.inner) for block in blocks} == {(8, 16)}  # two heads of 8, and a stream of 15
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-8, atol=1e-8)


class Halves(nn.Module):
    """Two paths over the halves of its input, whose number of channels it keeps; its output has as many."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.paths = nn.ModuleList(nn.Linear(width // 2, width) for _ in range(2))
        self.out = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.split(x, self.width // 2, -1)
        return self.out(torch.relu(self.paths[0](left) + self.paths[1](right)))


def test_a_stored_size_that_fits_two_axes_follows_the_right_one_when_they_part() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), Halves(16)).double()
    follower = copy.deepcopy(model)
    x = torch.randn(2, 5, dtype=torch.float64)
    gsprune.prune_step(model, 0.5, example_inputs=x, followers=(follower,))
    assert model[2].width == follower[2].width == 8
    for sparsity, width in (({"0": 0.75, "*paths*": 0.5}, 4), ({"0": 0.75, "*paths*": 0.75}, 4)):
        dense = copy.deepcopy(model)
        report = gsprune.prune_step(model, sparsity, followers=(follower,))
        assert report.changed
        assert model[2].width == follower[2].width == model[0].out_features == width
        torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(follower(x).shape, model(x).shape)


class Splits(nn.Module):
    """Linear layers over parts of its input, whose sizes it stores in a list."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.layers = nn.ModuleList(nn.Linear(size, 4) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        return sum(layer(part) for layer, part in zip(self.layers, x.split(self.sizes, -1), strict=True))


def test_blocks_of_one_class_may_store_lists_of_different_lengths() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 12), Splits(4, 4, 4), nn.ReLU(), nn.Linear(4, 12), Splits(6, 6)).double()
    x = torch.randn(2, 5, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert (model[1].sizes, model[4].sizes) == ([2, 2, 2], [3, 3])
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-8, atol=1e-8)


def test_blocks_with_longer_lists_of_sizes_than_the_first_do_not_use_up_the_forwards() -> None:
    torch.manual_seed(0)
    counts = (2, 3, 4, 5, 6, 7)
    blocks = [nn.Sequential(nn.ReLU(), nn.Linear(4, 4 * count), Splits(*[4] * count)) for count in counts]
    model = nn.Sequential(nn.Linear(5, 4), *blocks).double()
    x = torch.randn(2, 5, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert [block[2].sizes for block in blocks] == [[2] * count for count in counts]
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-8, atol=1e-8)


class PartAttention(nn.Module):
    """Attention over the first channels of its input; it stores their number, and computes that of the others."""

    def __init__(self, width: int, part: int, size: int) -> None:
        super().__init__()
        self.width, self.part, self.size = width, part, size
        self.norm = nn.GroupNorm(1, part)
        self.qkv, self.proj = nn.Conv2d(part, 2 * size + part, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        first, others = x.split([self.part, self.width - self.part], 1)
        q, k, v = (part.flatten(2) for part in self.qkv(self.norm(first)).split([self.size, self.size, self.part], 1))
        scores = (q.transpose(-2, -1) @ k).softmax(-1)
        first = (v @ scores.transpose(-2, -1)).reshape(n, self.part, h, w)
        return x + self.proj(torch.cat([first, others], 1))


def test_terms_of_a_difference_are_found_together_in_all_blocks() -> None:
    torch.manual_seed(0)
    blocks = [PartAttention(24, 8, 4) for _ in range(9)]
    model = nn.Sequential(nn.Conv2d(3, 24, 1), *blocks, nn.Conv2d(24, 2, 1)).double()
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert {(block.width, block.part, block.size) for block in blocks} == {(12, 4, 2)}, str(report)
    assert model(x).shape == (2, 2, 5, 5)


class PartConv(nn.Module):
    """A convolution of the first quarter of its channels (FasterNet); it stores the sizes of both parts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.part, self.rest = width // 4, width - width // 4
        self.conv = nn.Conv2d(self.part, self.part, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first, others = x.split([self.part, self.rest], 1)
        return torch.cat([self.conv(first), others], 1)


def test_a_copied_size_that_fits_costs_no_forward() -> None:
    torch.manual_seed(0)
    widths, counts = (16, 32, 64, 128), (1, 2, 8, 2)
    stages: list[nn.Module] = [nn.Conv2d(3, widths[0], 1)]
    for width, count, following in zip(widths, counts, (*widths[1:], 3), strict=True):
        stages += [nn.Sequential(PartConv(width), nn.Conv2d(width, width, 1)) for _ in range(count)]
        stages += [nn.Conv2d(width, following, 1)]
    model, x = nn.Sequential(*stages).double(), torch.randn(2, 3, 5, 5, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert not [item for item in report.protected if "size" in item.reason]
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-8, atol=1e-8)
