"""Whole small networks: half of their channels go, and the smaller network equals the masked one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from affine_norms import affine_norms
from masked_networks import masked_copy
from torch import Tensor, nn
from tracing_zoo import ZOO

import gsprune
from gsprune.tracing import trace
from gsprune.tracing.outputs import tensors_in


def randomized(name: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = ZOO[name].build().double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.randn(parameter.shape))
        for buffer_name, buffer in model.named_buffers():
            if "running" in buffer_name:
                buffer.copy_(torch.rand(buffer.shape) + 0.5)
    return model.eval(), ZOO[name].inputs()


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
        name: {axis: rows for axis, rows in axes.items() if axis or not name.endswith("weight.original1")}
        for name, axes in removed.items()
    }


@pytest.mark.parametrize("name", ZOO)
def test_half_the_channels_go_and_the_rest_computes_what_the_masked_network_does(name: str) -> None:
    model, inputs = randomized(name)
    dense = copy.deepcopy(model)
    _, example = trace(model, inputs)
    report = gsprune.prune_step(model, 0.5, example_inputs=inputs)
    entry = ZOO[name]
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
