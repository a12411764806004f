"""A handler from outside of the package slices the state of an optimizer that gsprune does not know."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gsprune
from gsprune.rewrite.optimizers import StateSlicer, register_state_handler

X = torch.ones(2, 5)


class Kronecker(torch.optim.Optimizer):
    """Shampoo's state: one square matrix per axis, which has no shape of the parameter's."""

    def __init__(self, parameters: Any, lr: float = 0.1) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        del closure
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            for axis, size in enumerate(parameter.shape):
                state.setdefault(f"factor_{axis}", torch.eye(size) + torch.ones(size, size) / 10)
                turned = torch.tensordot(parameter, state[f"factor_{axis}"], ([axis], [0]))
                parameter.copy_(turned.movedim(-1, axis))


class KroneckerHandler:
    """Cuts both axes of a factor where the parameter's axis is cut."""

    def slice_state(self, optimizer: torch.optim.Optimizer, slicer: StateSlicer) -> None:
        for parameter, state in optimizer.state.items():
            for axis, kept in slicer.cut_of(parameter).items():
                slicer.slice(state[f"factor_{axis}"], {0: kept, 1: kept})
        slicer.note("factors were cut")


@pytest.fixture
def _registered() -> None:
    register_state_handler(Kronecker, KroneckerHandler())


def weight_of(net: nn.Sequential) -> nn.Parameter:
    return net.get_parameter("0.weight")


def trained() -> tuple[nn.Sequential, Kronecker]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = Kronecker(net.parameters())
    optimizer.step()
    return net, optimizer


def test_without_a_handler_the_state_is_refused() -> None:
    net, optimizer = trained()
    with pytest.raises(gsprune.RewriteError, match="factor_0"):
        gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X)


@pytest.mark.usefixtures("_registered")
def test_a_handler_slices_the_state_in_the_same_step() -> None:
    net, optimizer = trained()
    before: dict[str, Tensor] = {key: value.clone() for key, value in optimizer.state[weight_of(net)].items()}
    report = gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X)
    removed = report.removed["0.weight"][0]
    kept = torch.tensor([i for i in range(8) if i not in removed.tolist()])
    state = optimizer.state[weight_of(net)]
    torch.testing.assert_close(state["factor_0"], before["factor_0"][kept][:, kept])
    torch.testing.assert_close(state["factor_1"], before["factor_1"])
    assert "factors were cut" in report.notes
    optimizer.step()
    assert net(X).shape == (2, 3)


@pytest.mark.usefixtures("_registered")
def test_a_subclass_is_served_by_the_same_handler() -> None:
    class Faster(Kronecker):
        pass

    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = Faster(net.parameters())
    optimizer.step()
    gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X)
    optimizer.step()


@pytest.mark.usefixtures("_registered")
def test_a_failed_step_leaves_the_state_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    net, optimizer = trained()
    factor = optimizer.state[weight_of(net)]["factor_0"]
    before = factor.clone()

    def fail(*args: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr("gsprune.rewrite.verification.Verification.check", fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X)
    assert optimizer.state[weight_of(net)]["factor_0"] is factor
    torch.testing.assert_close(factor, before)


def test_what_is_no_handler_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`handler` must have a method `slice_state"):
        register_state_handler(Kronecker, object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`kind` must be an optimizer's class"):
        register_state_handler("Kronecker", KroneckerHandler())  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=r"must be an object, got the class KroneckerHandler; call it: KroneckerHandler"
    ):
        register_state_handler(Kronecker, KroneckerHandler)


@pytest.mark.parametrize(
    ("cut", "error", "message"),
    [
        (lambda state, kept: (state["factor_0"], {2: kept}), ValueError, r"`cut` has axis 2, but .* shape \(8, 8\)"),
        (lambda state, kept: (state["factor_0"], {0: kept + 8}), ValueError, r"sorted positions below 8 for axis 0"),
        (lambda state, kept: (state["factor_0"], {0: kept[::-1]}), ValueError, r"sorted positions below 8 for axis 0"),
        (lambda state, kept: (state["factor_0"].to_sparse(), {0: kept}), ValueError, r"must be dense .*sparse_coo"),
        (lambda state, kept: (state, {0: kept}), TypeError, r"`tensor` must be a tensor, got dict"),
    ],
)
def test_a_wrong_cut_of_a_handler_is_named_and_changes_nothing(cut: Any, error: type[Exception], message: str) -> None:
    class Other(Kronecker):
        """An optimizer with a handler of its own."""

    class Handler:
        def slice_state(self, optimizer: torch.optim.Optimizer, slicer: StateSlicer) -> None:
            for parameter, state in optimizer.state.items():
                kept = slicer.cut_of(parameter)
                if 0 in kept:
                    slicer.slice(*cut(state, kept[0]))

    register_state_handler(Other, Handler())
    net, _ = trained()
    optimizer = Other(net.parameters())
    optimizer.step()
    with pytest.raises(error, match=message):
        gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X)
    assert weight_of(net).shape == (8, 5)


def test_a_state_without_a_rule_is_refused_with_the_ways_out() -> None:
    net, _ = trained()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    optimizer.state[weight_of(net)]["square"] = torch.eye(8, 8)
    with pytest.raises(gsprune.RewriteError, match=r"\(8, 8\), which cannot follow .*register_state_handler"):
        gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X)
    optimizer.state[weight_of(net)]["square"] = torch.ones(8, 5).to_sparse()
    with pytest.raises(gsprune.RewriteError, match=r"'square' .* is torch.sparse_coo, which cannot be sliced along"):
        gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X)
