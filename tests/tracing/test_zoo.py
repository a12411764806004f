"""Whole small networks: half of their channels go, and the smaller network equals the masked one."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from affine_norms import affine_norms
from layer_zoo import LAYER_ZOO
from masked_networks import masked_copy
from torch import Tensor, nn
from torch.nn.utils import weight_norm
from tracing_zoo import ZOO

import gsprune
from gsprune.tracing import trace
from gsprune.tracing.outputs import tensors_in

NETWORKS = {**ZOO, **LAYER_ZOO}


def randomized(name: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = NETWORKS[name].build().double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.randn(parameter.shape))
        for buffer_name, buffer in model.named_buffers():
            if "running" in buffer_name:
                buffer.copy_(torch.rand(buffer.shape) + 0.5)
    return model.eval(), NETWORKS[name].inputs()


@contextmanager
def without_norms() -> Iterator[None]:
    """Norms over channels scale and shift alone; the fused encoder layer would not know."""
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with affine_norms():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def without_directions(removed: Mapping[str, Mapping[int, Tensor]]) -> dict[str, dict[int, Tensor]]:
    """Rows of a weight norm's direction are left as they are: zeros have no norm, and their magnitude is zero."""
    return {
        name: {axis: rows for axis, rows in axes.items() if axis or not name.endswith(("weight.original1", "weight_v"))}
        for name, axes in removed.items()
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_half_the_channels_go_and_the_rest_computes_what_the_masked_network_does(name: str) -> None:
    model, inputs = randomized(name)
    dense = copy.deepcopy(model)
    _, example = trace(model, inputs)
    report = gsprune.prune_step(model, 0.5, example_inputs=inputs)
    entry = NETWORKS[name]
    assert report.params_after <= entry.parameters * report.params_before, str(report)
    assert not [item for item in report.protected if "written into the code" in item.reason]
    with torch.no_grad(), nullcontext() if entry.exact else without_norms():
        expected = example.call(masked_copy(dense, without_directions(report.removed)))
        got = example.call(model)
    pairs = list(zip(tensors_in(got), tensors_in(expected), strict=True))
    assert pairs
    for one, other in pairs:
        assert one.shape == other.shape
        assert torch.isfinite(one).all()
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_the_older_weight_norm_is_pruned_although_torch_cannot_copy_it() -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            first, second = weight_norm(nn.Conv2d(3, 8, 3)), weight_norm(nn.Conv2d(8, 6, 3))
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Conv2d(6, 2, 1)).double()

    model, masked, x = build(), build(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert [layer.out_channels for layer in model if isinstance(layer, nn.Conv2d)] == [4, 3, 2]
    with torch.no_grad():
        for name, parameter in masked.named_parameters():
            for axis, positions in without_directions(report.removed).get(name, {}).items():
                parameter.index_fill_(axis, positions, 0)
    torch.testing.assert_close(model(x), masked(x), rtol=1e-9, atol=1e-9)


def test_a_compiled_network_is_pruned_and_compiles_anew() -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)).double()
    model, x = torch.compile(inner, backend="eager"), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    before = model(x)
    dense = copy.deepcopy(inner)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert inner[0].out_channels == 4
    assert model(x).shape == before.shape
    removed = {name.removeprefix("_orig_mod."): axes for name, axes in report.removed.items()}
    torch.testing.assert_close(model(x), masked_copy(dense, removed)(x), rtol=1e-9, atol=1e-9)
