"""Pruning inside autocast, no_grad and inference_mode blocks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

import gsprune
from gsprune.rewrite.session import session_of

LOW = (torch.bfloat16, torch.float16)


def convolutions() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )


def dense_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))


class Residual(nn.Module):
    """Uses one layer twice, so that the second use finds the first one's cast."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = x + self.shared(x).relu()
        return self.last(x + self.shared(x).relu())


class OwnBlock(nn.Module):
    """Opens an autocast block in its own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = dense_layers()

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.layers(x)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolutions": (convolutions, (4, 3, 6, 6)),
    "dense": (dense_layers, (4, 6)),
    "residual": (Residual, (4, 6)),
    "own block": (OwnBlock, (4, 6)),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    return make(), torch.randn(shape)


def widths(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in model.parameters()]


def blocks(dtype: torch.dtype) -> AbstractContextManager[object]:
    return torch.autocast("cpu", dtype=dtype)


@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_first_step_inside_a_block_does_what_it_does_outside(name: str, dtype: torch.dtype) -> None:
    inside, x = made(name)
    outside, _ = made(name)
    gsprune.prune_step(outside, 0.5, example_inputs=x)
    with blocks(dtype):
        report = gsprune.prune_step(inside, 0.5, example_inputs=x)
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == dtype
        assert torch.is_autocast_cache_enabled()
    assert report.channel_sparsity == pytest.approx(0.5, abs=0.05)
    for ours, theirs in zip(inside.parameters(), outside.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_forward_after_a_step_in_the_same_block_uses_the_new_weights(name: str, nested: bool) -> None:
    model, x = made(name)
    model.eval()
    gsprune.prune_step(model, 0.25, example_inputs=x)
    with blocks(torch.bfloat16):
        model(x).sum().backward()
        if nested:
            with blocks(torch.bfloat16):
                assert gsprune.prune_step(model, 0.5, example_inputs=x).changed
                inside = model(x)
        else:
            assert gsprune.prune_step(model, 0.5, example_inputs=x).changed
            inside = model(x)
        later = model(x)
    with blocks(torch.bfloat16):
        fresh = model(x)
    assert torch.equal(inside, fresh)
    assert torch.equal(later, fresh)


def test_training_goes_on_in_the_block_of_the_step() -> None:
    model, x = made("convolutions")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with blocks(torch.bfloat16):
        gsprune.prune_step(model, 0.5, optimizer=optimizer, example_inputs=x)
        loss = model(x).sum()
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(g is not None and g.shape == p.shape for g, p in zip(gradients, model.parameters(), strict=True))


def test_a_refused_step_leaves_the_block_as_it_was() -> None:
    model, x = made("dense")
    with blocks(torch.bfloat16):
        before = model(x)
        with pytest.raises(ValueError, match="nonsense"):
            gsprune.prune_step(model, 0.5, example_inputs=x, ignore=["nonsense"])
        assert torch.equal(model(x), before)


def test_a_step_that_is_taken_back_leaves_the_weights_that_the_block_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = made("dense")
    model.eval()
    with blocks(torch.bfloat16):
        before = model(x)

        def fails(*_: object) -> None:
            raise OSError("the disk is full")

        monkeypatch.setattr("gsprune.rewrite.network._Rewrite._session_entries", fails)
        with pytest.raises(OSError, match="the disk is full"):
            gsprune.prune_step(model, 0.5, example_inputs=x)
        assert torch.equal(model(x), before)


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_inputs_that_fit_only_under_autocast_prune(dtype: torch.dtype) -> None:
    model, x = made("dense")
    low = x.to(dtype)
    with blocks(dtype):
        assert gsprune.prune_step(model, 0.25, example_inputs=low).changed
    state = session_of(model)
    assert state is not None
    assert state.example is not None
    assert state.example.autocast == (("cpu", dtype),)
    assert gsprune.prune_step(model, 0.5).channel_sparsity == pytest.approx(0.5, abs=0.05)  # outside, no example


def test_inputs_that_fit_nowhere_are_refused_in_the_words_of_the_plain_call() -> None:
    model, x = made("dense")
    with blocks(torch.bfloat16), pytest.raises(gsprune.TraceError, match="mat1 and mat2 shapes"):
        gsprune.prune_step(model, 0.5, example_inputs=x[:, :5])


def test_a_trace_inside_a_block_is_that_outside() -> None:
    model, x = made("residual")
    with blocks(torch.float16):
        inside = gsprune.trace(model, x)
    assert str(inside) == str(gsprune.trace(model, x))


def test_loading_inside_a_block_drops_the_casts_of_the_old_weights(tmp_path: object) -> None:
    model, x = made("dense")
    other, _ = made("dense")
    with torch.no_grad():
        other.get_parameter("0.weight").mul_(3)
    gsprune.save(other, f"{tmp_path}/model.safetensors")
    with blocks(torch.bfloat16):
        model(x)
        gsprune.load(f"{tmp_path}/model.safetensors", into=model)
        assert torch.equal(model(x), other(x))


@pytest.mark.parametrize("block", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", NETWORKS)
def test_steps_without_gradients_leave_a_network_that_trains(name: str, block: type[torch.no_grad]) -> None:
    model, x = made(name)
    optimizer = torch.optim.Adam(model.parameters())
    model(x).sum().backward()
    optimizer.step()
    with block():
        for sparsity in (0.25, 0.5):
            assert gsprune.prune_step(model, sparsity, optimizer=optimizer, example_inputs=x).changed
    gradients = [parameter.grad for parameter in model.parameters()]
    states = [value for state in optimizer.state.values() for value in state.values()]
    assert not any(tensor.is_inference() for tensor in (*model.parameters(), *gradients, *states) if tensor is not None)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step()
    assert any(not torch.equal(new, old) for new, old in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("unscaled", [False, True], ids=["scaled", "unscaled"])
def test_a_gradient_scaler_goes_on_over_a_step(unscaled: bool) -> None:
    model, x = made("convolutions")
    optimizer = torch.optim.Adam(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def backward() -> None:
        optimizer.zero_grad()
        with blocks(torch.float16):
            loss = model(x).square().mean()
        scaler.scale(loss).backward()

    backward()
    if unscaled:
        scaler.unscale_(optimizer)
    kept = gsprune.prune_step(model, 0.5, optimizer=optimizer, example_inputs=x)
    before = model.get_parameter("0.weight").detach().clone()
    scaler.step(optimizer)
    scaler.update()
    assert kept.changed
    assert not torch.equal(model.get_parameter("0.weight"), before)
    backward()
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
