"""When the outputs of a smaller network count as those of the masked one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from snapshots import snapshot
from torch import Tensor, nn

import gsprune
from gsprune.rewrite import verification
from gsprune.rewrite.agreement import DoubtError, compare, settle

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("scale", [1e-30, 1e-5, 1.0, 1e5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_a_tenth_more_or_less_is_in_doubt_at_every_scale_of_outputs(scale: float, dtype: torch.dtype) -> None:
    expected = (scale * torch.tensor([[1.0, -0.5]])).to(dtype)
    assert compare(expected * (1 + 1e-6), expected) is None
    with pytest.raises(DoubtError):
        compare(expected * 1.1, expected)


def test_a_difference_in_float64_that_stays_when_all_is_in_float64_is_wrong() -> None:
    expected = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    assert compare(expected * (1 + 1e-12), expected) is None
    with pytest.raises(DoubtError) as raised:
        compare(expected + 1e-8, expected)
    assert "differs from the masked network's by 1e-08" in str(settle(raised.value, expected + 1e-8, expected))
    assert "differs from the masked network's by 1e-08" in str(settle(raised.value, None, None))
    assert settle(raised.value, expected + 1e-15, expected) is None


class Scores(nn.Module):
    """Attention without a norm, in float64, whose scale is a number in another precision."""

    def __init__(self, scale: Callable[[int], Tensor]) -> None:
        super().__init__()
        self.scale = scale
        self.query, self.key, self.value = (nn.Linear(6, 8) for _ in range(3))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.query(x), self.key(x), self.value(x)
        weights = (q @ k.transpose(-1, -2) / self.scale(q.shape[-1])).relu()
        return self.head(weights @ v)


@pytest.mark.parametrize(
    "scale",
    [
        lambda width: torch.full([], width**0.5),
        lambda width: torch.full([1], width**0.5),
        lambda width: torch.tensor(float(width)).sqrt(),
        lambda width: torch.tensor(width**0.5, dtype=torch.float32),
        lambda width: torch.full([], width**0.5, dtype=torch.float64).float(),
    ],
)
def test_a_scale_in_float32_is_rounded_as_such_in_a_network_in_float64(scale: Callable[[int], Tensor]) -> None:
    torch.manual_seed(0)
    model, x = Scores(scale).double(), torch.randn(3, 5, 6, dtype=torch.float64)
    report = gsprune.prune_step(model, 0.6, example_inputs=x)
    assert (model.query.out_features, model.key.out_features, model.value.out_features) == (4, 4, 4)
    assert [item.reason for item in report.protected] == ["output of the network"]


def test_other_shapes_and_numbers_of_outputs_are_told() -> None:
    assert "has shape (2,)" in str(compare(torch.ones(2), torch.ones(3)))
    assert "hold 1 tensors, the masked network's 2" in str(compare(torch.ones(2), (torch.ones(2), torch.ones(2))))


def test_entries_that_are_not_finite_are_left_out_where_the_masked_network_has_them_alone() -> None:
    odd = torch.tensor([1.0, NAN, INF, -INF])
    assert compare(torch.tensor([1.0, 2.0, 3.0, 4.0]), odd) is None
    assert compare(odd[1:], odd[1:]) is None
    for wrong in (torch.tensor([1.1, 2.0, 3.0, 4.0]), torch.full((4,), NAN), torch.full((4,), INF)):
        with pytest.raises(DoubtError):
            compare(wrong, odd)


def test_a_doubt_is_settled_by_whether_the_difference_vanishes() -> None:
    expected, wide = torch.tensor([1e-6]), torch.tensor([1e-6], dtype=torch.float64)
    with pytest.raises(DoubtError) as raised:
        compare(expected + 1e-9, expected)
    doubt = raised.value
    assert settle(doubt, wide + 1e-18, wide) is None
    assert "in float64" in str(settle(doubt, wide + 1e-9, wide))
    assert "in float64" in str(settle(doubt, wide * NAN, wide))
    assert settle(doubt, None, wide) is None  # unsettled, 1e-9 is no more than the rounding of terms of 1e-2
    with pytest.raises(DoubtError) as raised:
        compare(expected + 1e-7, expected)
    assert "differs" in str(settle(raised.value, wide, None))


class Cancelling(nn.Module):
    """What it puts out has passed through much larger sums, which are rounded in another way at every width."""

    def __init__(self, features: nn.Module, factor: float) -> None:
        super().__init__()
        self.features, self.head, self.factor = features, nn.Linear(128, 2), factor

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(x)
        large = self.factor * h.shape[1]
        return (self.head(h) + large) - large


def relu_features() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 128), nn.ReLU())


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(8, 128, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x[:, None])[0][:, 0]


class Typed(nn.Module):
    """Types written into the code, tensors made in it, a buffer, batch norm, a constant that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(8, 128), nn.BatchNorm1d(128)
        self.register_buffer("shift", torch.rand(1))
        self.factor = torch.rand(1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(len(x), self.first.out_features, dtype=torch.float32)
        h += self.norm(self.first(x.to(torch.float32)).float())
        return torch.relu_(h * self.factor + self.shift) + torch.rand(len(x), 1)


@pytest.mark.parametrize(
    ("features", "dtype", "factor"),
    [
        (relu_features, torch.float32, 1e3),
        (Recurrent, torch.float32, 1e3),
        (Typed, torch.float32, 1e3),
        (relu_features, torch.bfloat16, 0.25),
        (Recurrent, torch.bfloat16, 0.25),
    ],
)
def test_what_cancellation_leaves_is_not_refused(
    features: Any, dtype: torch.dtype, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    doubts: list[DoubtError] = []
    monkeypatch.setattr(verification, "settle", lambda *args: (doubts.append(args[0]), settle(*args))[1])
    model = Cancelling(features(), factor).to(dtype)
    x = torch.randn(4, 8, dtype=dtype)
    before, rng = {name: id(p) for name, p in model.named_parameters()}, torch.get_rng_state()
    assert gsprune.prune_step(model, 0.5, example_inputs=x).changed
    (doubt,) = doubts
    assert settle(doubt, None, None) is not None  # so far off that no fixed tolerance would do
    assert {name: id(p) for name, p in model.named_parameters()} == before
    assert all(tensor.dtype is dtype for tensor in model.state_dict().values() if tensor.is_floating_point())
    assert torch.equal(torch.get_rng_state(), rng)
    assert model(x).shape == (4, 2)


class Counting(nn.Module):
    """A division by the number of channels that no tracer sees: it is asked of the weight's storage, and NumPy's."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.first, self.head, self.scale = nn.Linear(8, 16), nn.Linear(16, 2, bias=False), scale

    def forward(self, x: Tensor) -> Tensor:
        count = self.first.weight.untyped_storage().nbytes() // (8 * self.first.weight.element_size())
        return self.head(torch.relu(self.first(x))) / torch.from_numpy(np.full(2, count, np.float32)) * self.scale


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_wrong_result_keeps_its_channels_however_small_the_outputs_are(scale: float, dtype: torch.dtype) -> None:
    if dtype is torch.float64 and scale < 1e-6:
        pytest.skip("nothing above float64 could settle it")
    torch.manual_seed(0)
    model = Counting(scale).to(dtype)
    x = torch.randn(4, 8, dtype=dtype)
    before = model(x)
    with pytest.warns(gsprune.PruneWarning, match="nothing of Counting can be removed"):
        report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert torch.equal(model(x), before)
    (reason,) = {item.reason for item in report.protected if "first" in item.names}
    assert "in Counting" in reason
    assert "aten.div computes other values than in the masked network" in reason


def test_where_a_small_part_of_an_output_is_wrong_only_its_channels_stay() -> None:
    class Slightly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain, self.wrong = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)), Counting(1.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.plain(x) + 1e-3 * self.wrong(x)

    torch.manual_seed(0)
    model = Slightly()
    gsprune.prune_step(model, 0.5, example_inputs=torch.randn(4, 8))
    assert (model.plain[0].out_features, model.wrong.first.out_features) == (8, 16)


def test_where_there_is_no_doubt_the_network_runs_twice_masked_and_sliced() -> None:
    model, x = relu_features().append(nn.Linear(128, 2)), torch.randn(4, 8)
    gsprune.prune_step(model, 0.5, example_inputs=x, dry_run=True)  # traces
    widths: list[int] = []
    model[2].register_forward_pre_hook(lambda _, inputs: widths.append(inputs[0].shape[1]))
    gsprune.prune_step(model, 0.5)
    assert widths == [128, 64]


class Own(nn.Module):
    """An operation of the user's own, which float64 cannot be tried on."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.net = Counting(scale)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.gsprune_tests.doubled(self.net(x))


def test_where_float64_is_of_no_use_a_coarser_tolerance_decides() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    with torch.library._scoped_library("gsprune_tests", "FRAGMENT") as library:
        library.define("doubled(Tensor x) -> Tensor")
        library.impl("doubled", lambda x: 2 * x, "CPU")
        assert gsprune.prune_step(Own(1e-12), 0.5, example_inputs=x).changed
        with pytest.warns(gsprune.PruneWarning, match="nothing of Own can be removed"):
            assert not gsprune.prune_step(Own(1.0), 0.5, example_inputs=x).changed


def test_memory_that_runs_out_in_the_check_is_told_as_that() -> None:
    class Large(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            if self[0].weight.shape[0] < 128:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
            return super().forward(x)

    model = Large(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, 2))
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        gsprune.prune_step(model, 0.5, example_inputs=torch.ones(4, 8))
    assert snapshot(model) == before
