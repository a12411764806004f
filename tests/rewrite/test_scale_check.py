"""Numbers that a forward computes from a width: behind a LayerNorm, no comparison of outputs finds a wrong one."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from affine_norms import affine_norms
from masked_networks import masked_copy
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import gsprune

X = torch.randn(3, 5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Attend = Callable[[Any, Tensor], Tensor]


class Attention(nn.Module):
    """Projections of two heads of width 8, other tensors that attention may use, and a norm before the output."""

    def __init__(self, attend: Attend, norm: bool) -> None:
        super().__init__()
        self.attend = attend
        self.q, self.k, self.v = (nn.Linear(12, 16) for _ in range(3))
        self.norm = nn.LayerNorm(16) if norm else nn.Identity()
        self.out = nn.Linear(16, 4)
        for name, shape in PARAMETERS.get(attend, {}).items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape)))
        if attend is normed_weight:
            parametrizations.weight_norm(self.q)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.attend(self, x)))

    @staticmethod
    def heads(y: Tensor) -> Tensor:
        return y.unflatten(-1, (2, -1)).transpose(1, 2)

    @staticmethod
    def joined(y: Tensor) -> Tensor:
        return y.transpose(1, 2).flatten(2)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.heads(self.q(x)), self.heads(self.k(x)), self.heads(self.v(x))

    def weighted(self, logits: Tensor, v: Tensor) -> Tensor:
        return self.joined(logits.softmax(-1) @ v)


def of_logits(change: Callable[[Tensor, Tensor], Tensor]) -> Attend:
    """Attention whose logits are a function of queries and keys."""

    def attend(net: Any, x: Tensor) -> Tensor:
        q, k, v = net.parts(x)
        return net.weighted(change(q, k), v)

    return attend


def written(q: Tensor, k: Tensor) -> Tensor:
    logits = q.new_empty(*q.shape[:3], k.shape[2])
    logits[:] = q @ k.mT
    return logits / math.sqrt(q.shape[-1])


def distances(q: Tensor) -> Tensor:
    places = torch.arange(q.shape[2]).to(q)
    return (places[None] - places[:, None]).abs()


def bias_of_queries(net: Any, x: Tensor) -> Tensor:
    """Transformer-XL: a bias per head."""
    q, k, v = net.parts(x)
    return net.weighted((q + net.bias) @ k.mT / math.sqrt(q.shape[-1]), v)


def positions_on_both(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.heads(net.q(x) + net.position), net.heads(net.k(x) + net.position), net.heads(net.v(x))
    return net.joined(F.scaled_dot_product_attention(q, k, v))


def low_rank_weight(net: Any, x: Tensor) -> Tensor:
    q = net.heads(F.linear(x, net.q.weight + net.high @ net.low))
    return net.joined(F.scaled_dot_product_attention(q, net.heads(net.k(x)), net.heads(net.v(x))))


def heads_in_the_batch(net: Any, x: Tensor) -> Tensor:
    q, k, v = (torch.cat(layer(x).chunk(2, 2), 0) for layer in (net.q, net.k, net.v))
    return torch.cat(((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v).chunk(2, 0), 2)


def normed_weight(net: Any, x: Tensor) -> Tensor:
    return net.joined(F.scaled_dot_product_attention(*net.parts(x)))


def standardised_weight(net: Any, x: Tensor) -> Tensor:
    q = net.heads(F.linear(x, F.normalize(net.q.weight, dim=1)))
    return net.joined(F.scaled_dot_product_attention(q, net.heads(net.k(x)), net.heads(net.v(x))))


def queries_as_values(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.parts(x)
    return net.joined(F.scaled_dot_product_attention(q, k, q) + v)


def biased_by_distance(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.parts(x)
    return net.joined(F.scaled_dot_product_attention(q, k, v, attn_mask=-distances(q) / math.sqrt(q.shape[-1])))


def pooled(net: Any, x: Tensor) -> Tensor:
    """One logit per position, divided by the root of the width that it was computed from."""
    h = torch.tanh(net.q(x))
    logits = h @ net.logit / math.sqrt(h.shape[-1])
    return logits.softmax(1) * (h + net.k(x) + net.v(x))


def weights_of_attention(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.parts(x)
    return net.joined((q @ k.mT * 0.3).softmax(-1) * q.shape[-1] ** 0.5 @ v)


def sum_over_heads(net: Any, x: Tensor) -> Tensor:
    """Additive attention."""
    q, k, v = net.parts(x)
    return net.weighted(torch.tanh(q.unsqueeze(3) + k.unsqueeze(2)).sum(-1) / math.sqrt(q.shape[-1]), v)


PARAMETERS: dict[Attend, dict[str, tuple[int, ...]]] = {
    bias_of_queries: {"bias": (2, 1, 8)},
    positions_on_both: {"position": (5, 16)},
    low_rank_weight: {"low": (2, 12), "high": (16, 2)},
    pooled: {"logit": (16, 1)},
}
NETWORKS = [
    *(bias_of_queries, positions_on_both, low_rank_weight, heads_in_the_batch, normed_weight, standardised_weight),
    *(queries_as_values, biased_by_distance, pooled, weights_of_attention, sum_over_heads),
    of_logits(lambda q, k: (q @ k.mT + q.mean(-1, keepdim=True)) / math.sqrt(q.shape[-1])),
    of_logits(lambda q, k: 0.7 * (q @ k.mT) / math.sqrt(q.shape[-1])),
    of_logits(lambda q, k: (q @ k.mT) * 4.0 / q.shape[-1]),
    of_logits(lambda q, k: (q @ k.mT).clamp(-1, 1) / math.sqrt(q.shape[-1])),
    of_logits(lambda q, k: torch.stack([q[:, i] @ k[:, i].mT for i in range(2)], 1) / math.sqrt(q.shape[-1])),
    of_logits(lambda q, k: (q @ k.mT) * 0.3 - distances(q) / math.sqrt(q.shape[-1])),
    of_logits(lambda q, k: (q @ k.mT) / math.sqrt(q.shape[-1]) + 0.2 * (q @ k.mT).mean(-1, keepdim=True).relu()),
    of_logits(written),
]


@pytest.mark.filterwarnings("ignore::gsprune.PruneWarning")
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("attend", NETWORKS)
def test_numbers_computed_from_a_width_stay_or_are_made_up_for(attend: Attend, norm: bool) -> None:
    torch.manual_seed(0)
    model = Attention(attend, norm).double()
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=X)
    with torch.no_grad(), affine_norms():
        expected, got = masked_copy(dense, report.removed)(X + 0.1), model(X + 0.1)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("norm", [False, True])
def test_only_the_queries_that_cannot_make_up_for_a_scale_keep_their_width(norm: bool) -> None:
    torch.manual_seed(0)
    plain = Attention(of_logits(lambda q, k: q @ k.mT / math.sqrt(q.shape[-1])), norm)
    model = nn.Sequential(plain, nn.Linear(4, 12), Attention(bias_of_queries, norm)).double()
    report = gsprune.prune_step(model, 0.5, example_inputs=X)
    assert (model[0].q.out_features, model[2].q.out_features) == (8, 16)
    (reason,) = {item.reason for item in report.protected if "2.q" in item.names}
    assert "scale of attention" in reason


def test_a_check_of_scales_changes_nothing_if_the_step_fails() -> None:
    torch.manual_seed(0)
    model = Attention(bias_of_queries, norm=True).double()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = model(X)
    with pytest.raises(ValueError, match="sparsity"):
        gsprune.prune_step(model, 1.5, example_inputs=X)
    gsprune.prune_step(model, 0.5, example_inputs=X, dry_run=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    torch.testing.assert_close(model(X), expected, rtol=0, atol=0)


class DecayedHeads(nn.Module):
    """A factor per head, in a forward that stores the number of heads; whole heads are removed."""

    def __init__(self, heads: int, norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 3)
        self.norm = nn.LayerNorm(12) if norm else nn.Identity()
        self.register_buffer("decay", 1 - 2.0 ** (-1 - torch.arange(heads).double()))

    def forward(self, x: Tensor) -> Tensor:
        heads = self.first(x).view(*x.shape[:2], self.heads, -1)
        return self.second(self.norm((heads * self.decay[:, None]).flatten(2)))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("heads", [2, 3])
def test_a_stored_number_of_heads_follows_down_to_one(heads: int, norm: bool) -> None:
    torch.manual_seed(0)
    model = DecayedHeads(heads, norm).double()
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=X)
    assert model.first.out_features == 12 * (heads - 1) // heads
    with torch.no_grad(), affine_norms():
        expected, got = masked_copy(dense, report.removed)(X), model(X)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)


def test_a_masked_output_of_nan_is_no_comparison() -> None:
    torch.manual_seed(0)
    hidden = parametrizations.weight_norm(nn.Linear(12, 16))
    divide = nn.Module()
    divide.forward = lambda h: h / hidden.bias.shape[0]  # type: ignore[method-assign]
    model = nn.Sequential(hidden, nn.ReLU(), nn.Linear(16, 1), divide, nn.Linear(1, 3)).double()
    expected = model(X)
    with pytest.warns(gsprune.PruneWarning, match="can be removed"):
        gsprune.prune_step(model, 0.5, example_inputs=X)
    torch.testing.assert_close(model(X), expected, rtol=0, atol=0)
