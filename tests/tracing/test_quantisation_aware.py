"""Networks prepared for quantisation-aware training are pruned, with the scales and observers of their channels."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from masked_networks import masked_copy
from torch import Tensor, nn

import gsprune
from gsprune.tracing import trace

with warnings.catch_warnings(action="ignore"):  # torch moves its quantisation elsewhere
    from torch.ao import quantization
    from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize

X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def conv_net() -> nn.Module:
    """Two convolutions, a linear layer, and what torch fuses with them."""
    layers = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4)]
    return nn.Sequential(quantization.QuantStub(), *layers, *head, quantization.DeQuantStub())


def prepared(qconfig: Any, *, fuse: bool, seen: int = 2) -> nn.Module:
    """The network in training, prepared, after some forwards in which its observers have run."""
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):
        model = conv_net().train()
        if fuse:
            pairs = [["1", "2", "3"], ["4", "5"], ["8", "9"]]
            model = quantization.fuse_modules_qat(model, pairs)
        model.qconfig = qconfig
        quantization.prepare_qat(model, inplace=True)
    for _ in range(seen):
        model(X)
    return model


def per_channel_qconfig() -> Any:
    """Fake quantisation that is not fused with its observer, per channel."""
    activation = quantization.default_qat_qconfig.activation
    return quantization.QConfig(activation=activation, weight=quantization.default_per_channel_weight_fake_quant)


def without_observers(model: nn.Module) -> nn.Module:
    """The network with its scales as they are."""
    return model.eval().apply(quantization.disable_observer)


QCONFIGS = {
    "fused, per channel": lambda: quantization.get_default_qat_qconfig("fbgemm"),
    "fused, per tensor": lambda: quantization.get_default_qat_qconfig("qnnpack"),
    "per channel": per_channel_qconfig,
    "per tensor": lambda: quantization.default_qat_qconfig,
}


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torch")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("kind", QCONFIGS)
def test_a_prepared_network_shrinks_exactly_and_trains_on(kind: str, fuse: bool) -> None:
    model = prepared(QCONFIGS[kind](), fuse=fuse)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=X)
    weights = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [len(m.weight) for m in weights] == [4, 6, 5, 4]
    assert [m.weight_fake_quant.scale.numel() for m in weights] == ([4, 6, 5, 4] if "channel" in kind else [1] * 4)
    assert {item.reason for item in report.protected} == {"output of the network"}
    assert (report.macs_before, report.macs_after) == (7072, 2642)
    expected = without_observers(masked_copy(dense, report.removed))(X)
    torch.testing.assert_close(without_observers(copy.deepcopy(model))(X), expected, rtol=1e-5, atol=1e-6)
    assert model.training
    model(X).sum().backward()  # the observers run again, on the smaller tensors
    assert [m.weight_fake_quant.activation_post_process.min_val.numel() for m in weights] == (
        [4, 6, 5, 4] if "channel" in kind else [1] * 4
    )


@pytest.mark.parametrize("kind", QCONFIGS)
@pytest.mark.parametrize("seen", [0, 2])
def test_a_trace_leaves_observers_bit_for_bit_as_they_were(kind: str, seen: int) -> None:
    model = prepared(QCONFIGS[kind](), fuse=True, seen=seen)
    before = copy.deepcopy(model.state_dict())
    graph, _ = trace(model, X)
    assert [group.num_units for group in graph.groups] == [8, 12, 10]
    after = model.state_dict()
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert after[name].shape == tensor.shape, name
        assert torch.equal(after[name], tensor), name


@pytest.mark.parametrize("kind", QCONFIGS)
@pytest.mark.parametrize("seen", [0, 2])
@pytest.mark.parametrize("switch", [quantization.disable_fake_quant, quantization.disable_observer])
def test_a_network_whose_quantisation_begins_later_trains_on(
    kind: str, seen: int, switch: Callable[[nn.Module], None]
) -> None:
    model = prepared(QCONFIGS[kind](), fuse=False, seen=seen)
    if seen or switch is quantization.disable_fake_quant:
        model.apply(switch)
    gsprune.prune_step(model, 0.5, example_inputs=X)
    assert len(model[1].weight) == 4
    model.apply(quantization.enable_observer).apply(quantization.enable_fake_quant)
    model(X).sum().backward()


@pytest.mark.parametrize("qconfig", [quantization.default_qconfig, quantization.get_default_qconfig("fbgemm")])
def test_a_network_prepared_for_calibration_shrinks(qconfig: Any) -> None:
    torch.manual_seed(0)
    model = conv_net().eval()
    model.qconfig = qconfig
    quantization.prepare(model, inplace=True)
    model(X)
    gsprune.prune_step(model, 0.5, example_inputs=X)
    assert [len(layer.weight) for layer in model if isinstance(layer, nn.Conv2d | nn.Linear)] == [4, 6, 5, 4]
    model(X)


class Learned(nn.Module):
    """Scales that are parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(5, 8), nn.Linear(8, 2)
        options = {"quant_min": -128, "quant_max": 127, "dtype": torch.qint8, "scale": 0.02}
        scheme = torch.per_channel_symmetric if channels > 1 else torch.per_tensor_symmetric
        observer = (
            quantization.MovingAveragePerChannelMinMaxObserver
            if channels > 1
            else quantization.MovingAverageMinMaxObserver
        )
        self.quantise = _LearnableFakeQuantize(observer, channel_len=channels, qscheme=scheme, **options)
        self.quantise.enable_param_learning()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.linear(x, self.quantise(self.first.weight), self.first.bias).relu())


@pytest.mark.parametrize("channels", [1, 8])
def test_learned_scales_go_with_their_channels(channels: int) -> None:
    torch.manual_seed(0)
    model, x = Learned(channels), torch.randn(3, 5)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert (len(model.first.weight), model.quantise.scale.numel()) == (4, 4 if channels > 1 else 1)
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-5, atol=1e-6)
    model(x).sum().backward()


class Unruled(nn.Module):
    """A weight goes through an operation that has no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(5, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.linalg.qr(self.first.weight)[0]
        return self.head(nn.functional.linear(x, weight, self.first.bias))


def test_a_weight_behind_an_operation_without_a_rule_is_named_with_the_operation() -> None:
    with pytest.warns(gsprune.PruneWarning, match=r"first: aten\.linalg_qr has no rule"):
        report = gsprune.prune_step(Unruled(), 0.5, example_inputs=torch.randn(3, 5))
    assert not report.changed
