"""Sizes that a forward counts on are told apart by what each operation must make, also where no output could tell."""

from __future__ import annotations

import copy

import pytest
import torch
from affine_norms import affine_norms
from masked_networks import masked_copy
from torch import Tensor, nn

import gsprune


class Pooled(nn.Module):
    """Attention that keeps the number of its heads before their size; any split of the inner width would run."""

    def __init__(self, width: int, heads: int, *, norm: bool) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, 3)
        self.scale = self.size**-0.5

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        x = self.norm(x)
        q, k, v = (layer(x).reshape(n, t, self.heads, self.size).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = (q * self.scale @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(n, t, -1))


@pytest.mark.parametrize("norm", [False, True])
def test_the_size_of_the_heads_shrinks_and_not_their_number_though_a_stem_has_as_many_channels(norm: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 24), Pooled(24, 4, norm=norm)).double()
    x = torch.randn(2, 6, 5, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert model[0].out_features == 2  # 4 before, as the number of heads
    assert (model[3].heads, model[3].size) == (4, 3)
    with affine_norms():
        torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-9, atol=1e-9)


class Widening(nn.Module):
    """A block that compares its two widths before it views with one of them."""

    def __init__(self, width: int, out: int, heads: int) -> None:
        super().__init__()
        self.width, self.out, self.heads, self.size = width, out, heads, out // heads
        self.scale = self.size**-0.5
        self.norm = nn.LayerNorm(width)
        self.qkv, self.last = nn.Linear(width, 3 * out), nn.Linear(out, out)
        if width != out:
            self.proj = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        normed = self.norm(x)
        if self.width != self.out:
            x = self.proj(normed).view(n, 2, -1, self.out).amax(1)
        q, k, v = self.qkv(normed).reshape(n, t, 3, self.heads, self.size).permute(2, 0, 3, 1, 4).unbind(0)
        if self.width != self.out:
            q = q.view(n, self.heads, 2, -1, self.size).amax(2)
        y = (q * self.scale @ k.transpose(-2, -1)).softmax(-1) @ v
        return x + self.last(y.transpose(1, 2).reshape(n, -1, self.out))


def test_widths_that_are_compared_with_each_other_change_together() -> None:
    torch.manual_seed(0)
    blocks = [Widening(16, 16, 1), Widening(16, 32, 2), Widening(32, 32, 2), Widening(32, 64, 4), Widening(64, 64, 4)]
    model = nn.Sequential(nn.Linear(5, 16), *blocks, nn.Linear(64, 3)).double()
    x = torch.randn(2, 16, 5, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert [(block.width, block.out, block.size) for block in model[1:-1]] == [
        (8, 8, 8),
        (8, 16, 8),
        (16, 16, 8),
        (16, 32, 8),
        (32, 32, 8),
    ]
    assert report.params_after < 0.3 * report.params_before
    with affine_norms():
        torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-9, atol=1e-9)


class Unembed(nn.Module):
    """A module without tensors that keeps the width of others."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).view(len(x), self.width, 4, 4)


class Stage(nn.Module):
    """Tokens through a layer and back to a picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer, self.back, self.conv = nn.Linear(width, width), Unembed(width), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.back(torch.relu(self.layer(x)))).flatten(2).transpose(1, 2)


def test_modules_without_tensors_follow_what_their_like_follows() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 12), *(Stage(12) for _ in range(12)), nn.Linear(12, 2)).double()
    x = torch.randn(2, 16, 3, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert {stage.back.width for stage in model[1:-1]} == {6}
    assert report.params_after < 0.35 * report.params_before
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-9, atol=1e-9)


class Pairs(nn.Module):
    """Counts its tokens by their values; a shape after that is nobody's to foretell."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.layer_norm(self.stem(x), (self.stem.out_features,))
        chosen = x[x.sum(1) > x.sum(1).median()]
        return self.head(torch.relu(self.inner(chosen))).sum(0)


def test_sizes_that_depend_on_data_are_not_held_against_the_smaller_network() -> None:
    torch.manual_seed(0)
    model = Pairs()
    report = gsprune.prune_step(model, 0.5, example_inputs=torch.randn(9, 4))
    assert (model.stem.out_features, model.inner.out_features) == (4, 4), str(report)


class Grouped(nn.Module):
    """A norm whose groups are its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, 12, 3), nn.GroupNorm(12, 12), nn.Conv2d(12, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.stem(x))))


def test_the_groups_of_an_instance_like_group_norm_go_with_its_channels() -> None:
    model = Grouped()
    gsprune.prune_step(model, 0.5, example_inputs=torch.randn(1, 3, 8, 8))
    assert (model.norm.num_groups, model.norm.num_channels) == (6, 6)
