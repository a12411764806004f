"""Sizes that a forward counts on are told apart by what each operation must make, also where no output could tell."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
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


class Doubled(nn.Module):
    """Attention over channels of which neighbours go together, so that a unit is more than one channel of a head."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.size, self.scale = 2, 8, 8**-0.5
        self.stem, self.twice = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 1, groups=8)
        self.qkv, self.proj, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(torch.relu(self.stem(x))).flatten(2).transpose(1, 2)
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, self.size).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q * self.scale @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.head(x + self.proj(y.transpose(1, 2).reshape(n, t, c)))


def test_a_head_whose_channels_go_by_twos_is_found_by_what_the_view_must_make() -> None:
    torch.manual_seed(0)
    model, x = Doubled().double(), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert (model.stem.out_channels, model.heads, model.size) == (4, 2, 4), str(report)
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-9, atol=1e-9)


class Mixed(nn.Module):
    """Blocks of which some must keep the width of a head, since a norm lies between projection and computed scale."""

    def __init__(self, width: int, heads: int, *, normed: bool) -> None:
        super().__init__()
        self.heads, self.size, self.inner, self.normed = heads, width // heads, width, normed
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, self.size).permute(2, 0, 3, 1, 4).unbind(0)
        q = torch.tanh(q) if self.normed else q
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj(y.transpose(1, 2).reshape(n, t, self.inner))


def test_what_helps_one_block_is_taken_back_where_another_of_its_class_kept_its_width() -> None:
    torch.manual_seed(0)
    kinds = [False, True, False, True, False]
    model = nn.Sequential(
        nn.Linear(5, 16), *(Mixed(16, 2, normed=normed) for normed in kinds), nn.Linear(16, 3)
    ).double()
    x = torch.randn(2, 6, 5, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert [block.qkv.in_features for block in model[1:-1]] == [8] * 5, str(report)
    assert [block.size for block in model[1:-1]] == [4, 8, 4, 8, 4], str(report)
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-9, atol=1e-9)


class Apart(nn.Module):
    """A view that asks for the heads alone, and a scale computed from the width of a head that a module keeps."""

    def __init__(self, *, given: bool) -> None:
        super().__init__()
        self.heads, self.size, self.given = 4, 6, given
        self.norm = nn.LayerNorm(24)
        self.q, self.k, self.v = (nn.Linear(24, 24) for _ in range(3))
        self.proj = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.given:
            y = F.scaled_dot_product_attention(q, k, v, scale=1 / math.sqrt(self.size))
        else:
            y = (q @ k.transpose(-2, -1) / math.sqrt(self.size)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("given", [False, True])
def test_a_scale_computed_from_a_kept_width_follows_it_though_the_forward_runs_without(given: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 24), Apart(given=given)).double()
    x = 3 * torch.randn(2, 6, 5, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert (model[1].q.out_features, model[1].size) == (12, 3), str(report)
    with affine_norms():
        torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-9, atol=1e-9)


class Buffered(Apart):
    """The scale is a buffer, which no width changes."""

    def __init__(self) -> None:
        super().__init__(given=False)
        self.register_buffer("scale", torch.tensor(6**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = (q @ k.transpose(-2, -1) * self.scale).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).flatten(2))


def test_a_scale_in_a_buffer_is_kept_and_nothing_made_up_for() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 24), Buffered()).double(), torch.randn(2, 6, 5, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert model[1].q.out_features == 12
    with affine_norms():
        torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-9, atol=1e-9)


def test_channels_that_shrink_to_one_may_be_moved_about_by_torch() -> None:
    class Rearranged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 3)
            self.head = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (layer(x).mT for layer in (self.q, self.k, self.v))
            return self.head(torch.einsum("ncs,nds,ndt->nct", q, k, v).mT)

    net = Rearranged()
    report = gsprune.prune_step(net, 0.75, example_inputs=torch.randn(2, 6, 4))
    assert [group.after for group in report.groups] == [1, 1]
    assert not any("written" in held.reason for held in report.protected)


class Crowded(nn.Module):
    """A view to the width of the last of several equal layers; `others` more attributes have the same value."""

    def __init__(self, layers: int, others: int) -> None:
        super().__init__()
        for index in range(others):
            setattr(self, f"other_{index}", 32)
        self.size = 32
        self.layers = nn.ModuleList(nn.Linear(3, 32) for _ in range(layers))
        self.heads = nn.ModuleList(nn.Linear(32, 2) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        *first, last = (torch.relu(layer(x)) for layer in self.layers)
        last = last.view(len(x), self.size)
        return torch.stack([head(y) for head, y in zip(self.heads, [*first, last], strict=True)]).sum(0)


@pytest.mark.parametrize(("layers", "others"), [(1, 24), (24, 0)])
def test_arguments_of_the_failing_call_and_the_sizes_that_it_needs_are_tried_first(layers: int, others: int) -> None:
    model = Crowded(layers, others)
    ratios = {f"layers.{index}": (index + 1) / 32 for index in range(layers)}
    gsprune.prune_step(model, ratios, example_inputs=torch.randn(2, 3))
    assert model.size == model.layers[-1].out_features == 32 - layers
