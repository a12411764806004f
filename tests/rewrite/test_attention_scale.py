"""Heads that shrink keep the scale of their attention, step after step and in followers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from affine_norms import affine_norms
from masked_networks import masked_copy
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import gsprune

Scale = Callable[[Tensor, Tensor], float]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(6, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.head(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def fresh() -> tuple[Attention, Tensor]:
    torch.manual_seed(0)
    return Attention().double(), torch.randn(2, 5, 6, dtype=torch.float64)


def test_outputs_equal_the_masked_network_s_after_every_step() -> None:
    model, x = fresh()
    for sparsity in (0.25, 0.5, 0.75):
        before = copy.deepcopy(model)
        report = gsprune.prune_step(model, sparsity, example_inputs=x)
        torch.testing.assert_close(model(x), masked_copy(before, report.removed)(x), rtol=1e-12, atol=1e-12)
    assert model.q.out_features == 4


class Blocked(Attention):
    """Tokens in two blocks: torch has no fused attention for five axes, and multiplies by the scale as by a number."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(2, 3) for layer in (self.q, self.k, self.v))
        return self.head(self.norm(F.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(3)))


def test_heads_shrink_where_torch_takes_its_attention_apart() -> None:
    torch.manual_seed(0)
    model, x = Blocked().double(), torch.randn(2, 2, 5, 6, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert model.q.out_features == 8, str(report)
    with affine_norms():
        torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-12, atol=1e-12)


class OwnScale(nn.Module):
    """Attention by torch behind a norm of its input, with a scale of the code's own."""

    def __init__(self, scale: Scale, width: int, *, is_fused: bool) -> None:
        super().__init__()
        self.scale, self.is_fused = scale, is_fused
        self.embed, self.norm = nn.Linear(6, 12), nn.LayerNorm(12)
        self.q, self.k, self.v = (nn.Linear(12, width) for _ in range(3))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x))
        q, k, v = (layer(x)[:, None] for layer in (self.q, self.k, self.v))
        if not self.is_fused:
            q, k, v = (tensor[:, None] for tensor in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale(q, v))
        return self.head(y.flatten(1, -3))


@pytest.mark.parametrize("is_fused", [True, False])
@pytest.mark.parametrize("width", [16, 32])  # the square root of 1/16 is also 1/sqrt(16)
@pytest.mark.parametrize(
    ("scale", "shrinks"),
    [
        (lambda q, _: 1 / q.shape[-1], False),
        (lambda q, _: 3.0 / q.size(-1) ** 0.75, False),
        (lambda q, _: 2.0 / math.log(q.shape[-1]), False),
        (lambda q, _: q.shape[-1] ** -0.5, True),
        (lambda q, _: 0.3, True),
        (lambda q, _: 1 / (3 * q.shape[0]), True),
    ],
)
def test_a_scale_that_follows_the_width_as_no_square_root_keeps_it(
    scale: Scale, shrinks: bool, width: int, is_fused: bool
) -> None:
    torch.manual_seed(0)
    model, x = OwnScale(scale, width, is_fused=is_fused).double(), torch.randn(2, 5, 6, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert model.q.out_features == (width // 2 if shrinks else width), str(report)
    assert (model.v.out_features, model.embed.out_features) == (width // 2, 6)
    with affine_norms():
        torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("is_fused", [True, False])
def test_a_scale_that_follows_the_width_of_the_values_keeps_all_widths(is_fused: bool) -> None:
    torch.manual_seed(0)
    model = OwnScale(lambda _, v: 1 / v.shape[-1], 16, is_fused=is_fused).double()
    dense, x = copy.deepcopy(model), torch.randn(2, 5, 6, dtype=torch.float64)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert (model.v.out_features, model.embed.out_features) == (16, 6), str(report)
    with affine_norms():
        torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-12, atol=1e-12)


class ChosenKernel(Attention):
    """The code chooses the fused kernel, which is one operation."""

    def __init__(self, scale: float | None) -> None:
        super().__init__()
        self.factor = scale

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            y = F.scaled_dot_product_attention(q, k, v, scale=self.factor or 1 / math.sqrt(q.shape[-1]))
        return self.head(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("scale", [None, 0.3])
def test_heads_of_a_fused_kernel_shrink(scale: float | None) -> None:
    torch.manual_seed(0)
    model, x = ChosenKernel(scale).double(), torch.randn(2, 5, 6, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert (model.q.out_features, model.v.out_features) == (8, 8), str(report)
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-12, atol=1e-12)


def test_followers_are_scaled_along() -> None:
    model, x = fresh()
    target = copy.deepcopy(model)
    gsprune.prune_step(model, 0.5, example_inputs=x, followers=[target])
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, dict(target.named_parameters())[name])


def test_gradients_are_those_of_the_scaled_rows() -> None:
    model, x = fresh()
    model(x).square().sum().backward()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    products = {name: before[name] * parameter.grad for name, parameter in model.named_parameters()}
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    kept = [row for row in range(16) if row not in report.removed["q.weight"][0].tolist()]
    assert model.q.weight.grad is not None
    torch.testing.assert_close(model.q.weight * model.q.weight.grad, products["q.weight"][kept])
    torch.testing.assert_close(model.q.weight, before["q.weight"][kept] * 0.5**0.5)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 0.1),
    "amsgrad": lambda p: torch.optim.AdamW(p, 0.1, amsgrad=True),
    "nadam": lambda p: torch.optim.NAdam(p, 0.1),
    "radam": lambda p: torch.optim.RAdam(p, 0.1),
    "adamax": lambda p: torch.optim.Adamax(p, 0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, 0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.1, momentum=0.9, centered=True),
    "rprop": lambda p: torch.optim.Rprop(p, 0.1),
    "adafactor": lambda p: torch.optim.Adafactor(p, 0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_are_those_that_gradients_of_the_scaled_rows_would_have_left(name: str) -> None:
    model, x = fresh()
    model(x).mul(100).square().sum().backward()  # large beside the epsilons
    optimizer = OPTIMIZERS[name](model.parameters())
    optimizer.step()
    gsprune.prune_step(model, 0.5, optimizer=optimizer, example_inputs=x)
    twin = nn.Parameter(model.q.weight.detach().clone())
    assert model.q.weight.grad is not None
    twin.grad = model.q.weight.grad.clone()
    expected = OPTIMIZERS[name]([twin])
    expected.step()
    compared = 0
    for key, value in expected.state[twin].items():
        if torch.is_tensor(value) and value.numel() > 1 and key != "col_var":  # a mean over rows of both scales
            got = optimizer.state[model.q.weight][key]
            torch.testing.assert_close(got, value, rtol=1e-3, atol=1e-12)  # Adadelta's epsilon has no scale
            compared += 1
    assert compared


HIDDEN = torch.ones(5, 5, dtype=torch.bool).triu(1)


class MaskedFirst(Attention):
    """Attention whose code scales after it has changed the products."""

    def __init__(self, changed: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.changed = changed

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        products = self.changed(q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
        return self.head((products.softmax(-1) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("changed", "shrinks"),
    [
        (lambda qk: qk.masked_fill(HIDDEN, -math.inf), True),
        (lambda qk: torch.where(HIDDEN, -1e9, qk), True),
        (lambda qk: qk + torch.linspace(-1, 1, 5), False),
        (lambda qk: (qk - 1).masked_fill(HIDDEN, -math.inf), True),  # softmax ignores a shift
    ],
)
def test_a_scale_behind_a_mask_or_a_sum_is_kept_by_rows_or_by_the_width(
    changed: Callable[[Tensor], Tensor], shrinks: bool
) -> None:
    torch.manual_seed(0)
    model, x = MaskedFirst(changed).double(), torch.randn(2, 5, 6, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert (model.q.out_features, model.v.out_features) == (8 if shrinks else 16, 8), str(report)
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-12, atol=1e-12)
