"""A step inside a block of the user's: autocast, no_grad, inference mode."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

import gsprune

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def _network(norm: bool) -> nn.Sequential:
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(16)] if norm else []
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), *norms, nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(192, 32)
        self.cell = nn.GRUCell(32, 24)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.body(x.flatten(1)))
        return self.head(self.cell(h, torch.zeros(len(x), 24, dtype=h.dtype)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: _network(norm=False),
    "norm": lambda: _network(norm=True),
    "recurrent": _Recurrent,
    "attention": lambda: nn.Sequential(
        nn.Flatten(2), nn.TransformerEncoderLayer(64, 4, 96, batch_first=True), nn.Flatten(), nn.Linear(192, 4)
    ),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NETWORKS)
def test_autocast_leads_to_the_network_that_is_pruned_outside_of_it(name: str, dtype: torch.dtype) -> None:
    inside, outside = NETWORKS[name](), NETWORKS[name]()
    outside.load_state_dict(inside.state_dict())
    with torch.autocast("cpu", dtype=dtype):
        inside(X).sum().backward()  # fills the cache with casts of the dense weights
        gsprune.prune_step(inside, 0.25, example_inputs=X)
        inside(X)
        gsprune.prune_step(inside, 0.5)
        same_block = inside(X)
    gsprune.prune_step(outside, 0.25, example_inputs=X)
    gsprune.prune_step(outside, 0.5)
    assert {n: p.shape for n, p in inside.named_parameters()} == {n: p.shape for n, p in outside.named_parameters()}
    for name_of, parameter in inside.named_parameters():
        assert torch.equal(parameter, outside.get_parameter(name_of)), name_of
    inside.zero_grad()
    with torch.autocast("cpu", dtype=dtype):
        assert same_block.shape == inside(X).shape
        if not any(isinstance(module, nn.BatchNorm2d | nn.Dropout) for module in inside.modules()):
            assert torch.equal(same_block, inside(X))


def test_a_cell_whose_state_has_a_width_written_into_the_code_keeps_it() -> None:
    net = _Recurrent()
    report = gsprune.prune_step(net, 0.5, example_inputs=X)
    assert (net.body.out_features, net.cell.hidden_size) == (16, 24)
    assert any("_Recurrent" in str(protected.reason) for protected in report.protected)


def test_a_step_that_fails_in_an_autocast_block_leaves_its_casts_as_they_were() -> None:
    net = _network(norm=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = net(X)
        with pytest.raises(ValueError, match="`sparsity`"):
            gsprune.prune_step(net, 2.0, example_inputs=X)
        assert torch.is_autocast_cache_enabled()
        assert torch.equal(net(X), before)


@pytest.mark.parametrize("block", [contextlib.nullcontext, torch.no_grad, torch.inference_mode])
def test_tensors_made_in_a_block_can_be_trained_after_it(block: Callable[[], AbstractContextManager[None]]) -> None:
    net = _network(norm=True)
    optimizer = torch.optim.Adam(net.parameters(), foreach=False)
    net(X).sum().backward()
    optimizer.step()
    for sparsity in (0.25, 0.5):
        with block():
            assert gsprune.prune_step(net, sparsity, optimizer=optimizer, example_inputs=X).changed
    tensors = [p for p in net.parameters()] + [p.grad for p in net.parameters()]
    tensors += [value for state in optimizer.state.values() for value in state.values()]
    assert not any(tensor.is_inference() for tensor in tensors if tensor is not None)
    net(X).sum().backward()
    optimizer.step()
