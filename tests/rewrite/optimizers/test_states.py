"""Every optimizer of torch.optim: its state follows, and training goes on as that of the masked dense network."""

from __future__ import annotations

import copy
import re
from collections import UserDict
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from masked_training import assert_trained_alike, kept_part, mask_gradients, mask_like, mask_moments
from snapshots import snapshot
from torch import Tensor, nn, optim

import gsprune

X = torch.randn(4, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(0, 10, (4, 3), generator=torch.Generator().manual_seed(2))


def image_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),  # before a norm its gradient is noise, which RMSprop blows up
        nn.BatchNorm2d(8),
        nn.Tanh(),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(6 * 16, 10),
        nn.Tanh(),
        nn.Linear(10, 5),
    ).double()


def backward(net: nn.Module, inputs: Tensor) -> Tensor:
    net.zero_grad()
    loss: Tensor = net(inputs).square().mean()
    loss.backward()
    return loss


def one(make: Callable[..., optim.Optimizer], **options: object) -> Callable[[nn.Sequential], list[optim.Optimizer]]:
    """All parameters in one optimizer."""
    return lambda net: [make(net.parameters(), **options)]


def groups_and_two(net: nn.Sequential) -> list[optim.Optimizer]:
    """One optimizer with two groups of parameters and another for the head."""
    groups = [{"params": list(net[0].parameters()), "lr": 1e-3}, {"params": list(net[1:7].parameters())}]
    return [optim.AdamW(groups, amsgrad=True), optim.SGD(net[8].parameters(), 0.1, momentum=0.9, foreach=True)]


SGD = partial(optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-2)
RMSPROP = partial(optim.RMSprop, momentum=0.9, centered=True)

ELEMENTWISE: dict[str, Callable[[nn.Sequential], list[optim.Optimizer]]] = {
    **{
        f"{kind} {how}": one(make, **{how: True})
        for kind, make in {
            "Adadelta": optim.Adadelta,
            "Adagrad": optim.Adagrad,
            "Adam": partial(optim.Adam, amsgrad=True),
            "AdamW": optim.AdamW,
            "Adamax": optim.Adamax,
            "ASGD": partial(optim.ASGD, t0=1),
            "NAdam": optim.NAdam,
            "RAdam": optim.RAdam,
            "RMSprop": RMSPROP,
            "Rprop": optim.Rprop,
            "SGD": SGD,
        }.items()
        for how in ("foreach", "fused")
        if how == "foreach" or (how == "fused" and kind in ("Adagrad", "Adam", "AdamW", "SGD"))
    },
    "Adagrad, started above zero": one(optim.Adagrad, initial_accumulator_value=0.1, lr_decay=0.1),
    "Adam, rate a tensor, maximizing": one(optim.Adam, lr=torch.tensor(1e-3), foreach=False, maximize=True),
    "NAdam, decoupled decay": one(optim.NAdam, weight_decay=1e-2, decoupled_weight_decay=True),
    "SGD without momentum": one(optim.SGD, lr=0.1),
    "two groups, two optimizers": groups_and_two,
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_state_is_sliced_along_and_training_goes_on_as_if_masked(name: str) -> None:
    net = image_net()
    optimizers = ELEMENTWISE[name](net)
    for _ in range(2):
        backward(net, X)
        for optimizer in optimizers:
            optimizer.step()
    net.zero_grad()
    dense, dense_optimizers = copy.deepcopy((net, optimizers))
    report = gsprune.prune_step(net, 0.5, optimizer=optimizers, example_inputs=X)
    removed = report.removed
    assert all(group.after < group.before for group in report.groups)
    for ours, theirs in zip(optimizers, dense_optimizers, strict=True):
        mask_moments(dense, theirs, removed)
        assert_trained_alike((net, ours), (dense, theirs), removed, tolerance=0.0)
    mask_like(dense, removed)
    for _ in range(3):
        backward(net, X)
        backward(dense, X)
        mask_gradients(dense, removed)
        for optimizer in [*optimizers, *dense_optimizers]:
            optimizer.step()
    for ours, theirs in zip(optimizers, dense_optimizers, strict=True):
        assert_trained_alike((net, ours), (dense, theirs), removed)


def test_sparse_adam_follows_once_its_sparse_gradients_are_gone() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(10, 8, sparse=True), nn.Flatten(), nn.Linear(24, 12), nn.Tanh(), nn.Linear(12, 3))
    optimizers = [optim.SparseAdam(list(net[0].parameters())), optim.Adam(net[2:].parameters())]
    for _ in range(2):
        backward(net, TOKENS)
        for optimizer in optimizers:
            optimizer.step()
    before = {key: value.clone() for key, value in optimizers[0].state[net[0].weight].items() if key != "step"}
    unchanged = [tensor.clone() for tensor in net.parameters()]
    with pytest.raises(gsprune.RewriteError, match=r"gradient of '0\.weight' is torch\.sparse_coo.*zero_grad\(\)"):
        gsprune.prune_step(net, 0.5, optimizer=optimizers, example_inputs=TOKENS)
    assert all(torch.equal(a, b) for a, b in zip(unchanged, net.parameters(), strict=True))
    net.zero_grad()
    removed = gsprune.prune_step(net, 0.5, optimizer=optimizers, example_inputs=TOKENS).removed
    after = optimizers[0].state[net[0].weight]
    assert all(torch.equal(after[key], kept_part(value, removed["0.weight"])) for key, value in before.items())
    first = backward(net, TOKENS)
    for optimizer in optimizers:
        optimizer.step()
    assert backward(net, TOKENS) < first


@pytest.mark.skipif(not hasattr(optim, "Muon"), reason="torch has Muon since 2.9")
def test_muon_s_momentum_follows_beside_another_optimizer() -> None:
    net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3))
    weights = [net[i].weight for i in (0, 2, 4)]
    optimizers = [optim.Muon(weights, lr=1e-2), SGD([net[i].bias for i in (0, 2, 4)])]
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(3))
    for _ in range(2):
        backward(net, x)
        for optimizer in optimizers:
            optimizer.step()
    before = [optimizers[0].state[weight]["momentum_buffer"].clone() for weight in weights]
    removed = gsprune.prune_step(net, 0.5, optimizer=optimizers, example_inputs=x).removed
    for i, weight, momentum in zip((0, 2, 4), weights, before, strict=True):
        expected = kept_part(momentum, removed[f"{i}.weight"])
        assert torch.equal(optimizers[0].state[weight]["momentum_buffer"], expected)
    first = backward(net, x)
    for _ in range(3):
        for optimizer in optimizers:
            optimizer.step()
        last = backward(net, x)
    assert last < first


def test_adafactor_s_factored_moments_are_sliced_along_their_own_axis() -> None:
    net = image_net()
    optimizer = optim.Adafactor(net.parameters())
    backward(net, X)
    optimizer.step()
    before = {key: value.clone() for key, value in optimizer.state[net[6].weight].items()}
    removed = gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X).removed["6.weight"]
    rows, columns = (np.setdiff1d(np.arange(length), removed[axis].numpy()) for axis, length in enumerate((10, 6 * 16)))
    state = optimizer.state[net[6].weight]
    assert torch.equal(state["row_var"], before["row_var"][rows])
    assert torch.equal(state["col_var"], before["col_var"][:, columns])
    backward(net, X)
    optimizer.step()


def test_lbfgs_starts_its_history_anew_and_the_report_says_so() -> None:
    net = image_net()
    optimizer = optim.LBFGS(net.parameters(), max_iter=3)
    optimizer.step(lambda: backward(net, X))
    report = gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X)
    assert any("L-BFGS" in note for note in report.notes)
    before = backward(net, X).item()
    optimizer.step(lambda: backward(net, X))
    assert backward(net, X).item() < before


def test_tensors_in_lists_and_dictionaries_of_a_state_follow() -> None:
    net = image_net()
    optimizer = SGD(net.parameters())
    backward(net, X)
    optimizer.step()
    past = net[3].weight.detach().clone()
    optimizer.state[net[3].weight]["past"] = [past, {"before": (past.clone(), 3)}]
    expected = past.clone()
    removed = gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X).removed["3.weight"]
    last, earlier = optimizer.state[net[3].weight]["past"]
    assert last is past
    assert torch.equal(last, kept_part(expected, removed))
    assert torch.equal(earlier["before"][0], last)


@pytest.mark.parametrize("name", ["'sketch'", "0 in 'sketch'"])
def test_a_state_of_another_shape_is_refused_with_the_way_out_and_nothing_changes(name: str) -> None:
    net = image_net()
    optimizer = SGD(net.parameters())
    backward(net, X)
    optimizer.step()
    optimizer.state[net[3].weight]["sketch"] = torch.zeros(7) if name == "'sketch'" else [torch.zeros(7)]
    before = snapshot(net, optimizer)
    message = re.escape(f"state {name} of SGD for parameter '3.weight' has shape (7,)")
    with pytest.raises(gsprune.RewriteError, match=message):
        gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X)
    assert snapshot(net, optimizer) == before


def test_no_optimizer_of_torch_is_forgotten() -> None:
    tested = {type(optimizer).__name__ for make in ELEMENTWISE.values() for optimizer in make(image_net())}
    tested |= {"SparseAdam", "Adafactor", "LBFGS", *(["Muon"] if hasattr(optim, "Muon") else [])}
    exists = {
        name for name, kind in vars(optim).items() if isinstance(kind, type) and issubclass(kind, optim.Optimizer)
    }
    assert exists - {"Optimizer"} == tested


@pytest.mark.parametrize("state", [None, [], UserDict()])
def test_a_state_that_is_no_dictionary_is_looked_into(state: object) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    optimizer = optim.SGD(net.parameters(), 0.1)
    moment = torch.rand(8, 4)
    if isinstance(state, list):
        state.append(moment)
    elif isinstance(state, UserDict):
        state["moment"] = moment
    optimizer.state[net[0].weight] = state
    gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=torch.ones(1, 4))
    assert moment.shape == ((8, 4) if state is None else net[0].weight.shape)


def test_a_state_of_a_kind_that_cannot_be_looked_into_is_refused_by_name() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    optimizer = optim.SGD(net.parameters(), 0.1)
    optimizer.state[net[0].weight] = object()
    with pytest.raises(gsprune.RewriteError, match=r"the state of SGD for parameter '0.weight' is a object"):
        gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=torch.ones(1, 4))
    assert net[0].weight.shape == (8, 4)
