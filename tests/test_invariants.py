"""The invariants of a pruning step, over random networks."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from masked_training import assert_trained_alike, mask_gradients, mask_like, mask_moments
from random_networks import (
    EXACT_KINDS,
    KINDS,
    SMOOTH_KINDS,
    UNTOLD_KINDS,
    Block,
    RandomNet,
    example,
    loss_of,
    networks,
    outputs_of,
    randomize,
)
from snapshots import snapshot
from torch.nn.utils.parametrize import is_parametrized

import gsprune
from gsprune.rewrite.session import session_of

SPARSITIES = st.floats(0.05, 0.95)
LOW = ["float", "bfloat16", "half"]
SCOPES = st.sampled_from(["local", "global", "isomorphic"])
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, weight_decay=1e-2, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3, eps=1e-5),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=1e-3, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3),
    "fused_adam": lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
    "foreach_adam": lambda p: torch.optim.Adam(p, lr=1e-3, foreach=True),
    "adamax": lambda p: torch.optim.Adamax(p, lr=1e-3),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-3),
    "radam": lambda p: torch.optim.RAdam(p, lr=1e-3),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-3),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=1e-1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9, centered=True),
    "asgd": lambda p: torch.optim.ASGD(p, lr=1e-3),
    "rprop": lambda p: torch.optim.Rprop(p, lr=1e-3),
}


def assert_equal_to_masked(net: RandomNet, dense: RandomNet, report: gsprune.PruneReport) -> None:
    mask_like(dense, report.removed)
    inputs = example(net, 3, 1)
    with torch.no_grad():
        for got, expected in zip(outputs_of(net.eval(), inputs), outputs_of(dense.eval(), inputs), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@given(networks(), SPARSITIES, SCOPES)
def test_the_sliced_network_equals_the_masked_one(net: RandomNet, sparsity: float, scope: Any) -> None:
    dense = copy.deepcopy(net)
    report = gsprune.prune_step(net, sparsity, scope=scope, example_inputs=example(net))
    if not any(block.kinds() & set(UNTOLD_KINDS) for block in net.blocks):
        assert not gsprune.trace(dense, example(net)).inexact
    assert_equal_to_masked(net, dense, report)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@given(networks(tuple(kind for kind in EXACT_KINDS if kind != "Fused")), SPARSITIES, st.sampled_from(LOW))
def test_networks_of_low_precision_are_sliced_exactly(net: RandomNet, sparsity: float, precision: str) -> None:
    net = getattr(net, precision)()
    try:
        outputs_of(net, example(net))
    except (RuntimeError, NotImplementedError):
        reject()  # torch has no such operation in this precision
    dense = copy.deepcopy(net)
    report = gsprune.prune_step(net, sparsity, example_inputs=example(net))
    assert_equal_to_masked(net.double(), dense.double(), report)


@pytest.mark.parametrize("kind", EXACT_KINDS)
@pytest.mark.parametrize("option", [0, 1, 2])
def test_every_exact_kind_of_layer_is_exact_on_its_own(kind: str, option: int) -> None:
    net = RandomNet((Block(kind, 4, option),), flatten=True, hidden=5).double()
    randomize(net, option)
    dense = copy.deepcopy(net)
    assert gsprune.trace(net, example(net)).inexact == () or kind in UNTOLD_KINDS
    report = gsprune.prune_step(net, 0.5, example_inputs=example(net))
    assert report.changed
    assert_equal_to_masked(net, dense, report)


@given(networks(KINDS), SPARSITIES, SCOPES)
def test_any_network_runs_trains_and_keeps_what_it_puts_out(net: RandomNet, sparsity: float, scope: Any) -> None:
    shapes = [output.shape for output in outputs_of(net, example(net))]
    channels_last = {name for name, p in net.named_parameters() if not p.is_contiguous()}
    gsprune.prune_step(net, sparsity, scope=scope, example_inputs=example(net))
    assert [output.shape for output in outputs_of(net, example(net))] == shapes
    loss_of(net, example(net, 3)).backward()
    for parameter in net.parameters():
        assert parameter.grad is None or parameter.grad.shape == parameter.shape
        assert parameter.numel() > 0
    for name, parameter in net.named_parameters():
        memory_format = torch.channels_last if name in channels_last else torch.contiguous_format
        assert parameter.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("name", OPTIMIZERS)
@settings(max_examples=max(4, settings().max_examples // 5))
@given(net=networks(SMOOTH_KINDS, max_blocks=3), sparsity=st.floats(0.3, 0.8))
def test_training_goes_on_as_if_masked(name: str, net: RandomNet, sparsity: float) -> None:
    optimizer = OPTIMIZERS[name](net.parameters())
    for i in range(2):
        optimizer.zero_grad()
        loss_of(net, example(net, 4, i)).backward()
        optimizer.step()
    dense, dense_optimizer = copy.deepcopy((net, optimizer))
    identities = {name: id(p) for name, p in net.named_parameters()}
    removed = gsprune.prune_step(net, sparsity, optimizer=optimizer, example_inputs=example(net)).removed
    assert {name: id(p) for name, p in net.named_parameters()} == identities
    mask_like(dense, removed)
    mask_moments(dense, dense_optimizer, removed)
    for i in range(3):
        for model, opt in ((net, optimizer), (dense, dense_optimizer)):
            opt.zero_grad()
            loss_of(model, example(net, 4, 10 + i)).backward()
            if model is dense:
                mask_gradients(dense, removed)
            opt.step()
    assert_trained_alike((net, optimizer), (dense, dense_optimizer), removed)


@given(networks(KINDS), SPARSITIES, SCOPES)
def test_the_compiled_core_and_the_definition_choose_the_same(net: RandomNet, sparsity: float, scope: Any) -> None:
    net = net.float()
    other = copy.deepcopy(net)
    x = example(net)
    ours = gsprune.prune_step(net, sparsity, scope=scope, example_inputs=x, backend="cpp")
    theirs = gsprune.prune_step(other, sparsity, scope=scope, example_inputs=x, backend="torch")
    assert [g.removed.tolist() for g in ours.groups] == [g.removed.tolist() for g in theirs.groups]
    for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@given(networks(KINDS), st.floats(0.0, 0.9), st.floats(0.0, 0.9))
def test_two_local_steps_reach_the_widths_of_one(net: RandomNet, first: float, second: float) -> None:
    first, second = min(first, second), max(first, second)
    other = copy.deepcopy(net)
    gsprune.prune_step(net, first, example_inputs=example(net))
    two = gsprune.prune_step(net, second)
    one = gsprune.prune_step(other, second, example_inputs=example(net))
    if any("written into the code" in held.reason for held in two.protected):
        return  # what a forward refuses at one width is protected from then on
    assert {g.name: g.after for g in two.groups} == {g.name: g.after for g in one.groups}


@given(networks(KINDS), SPARSITIES, st.floats(0, 1), SCOPES, st.sampled_from(["channels", "params", "macs"]))
def test_the_last_request_or_a_smaller_one_is_the_identity(
    net: RandomNet, sparsity: float, fraction: float, scope: Any, target: Any
) -> None:
    gsprune.prune_step(net, sparsity, scope=scope, target=target, example_inputs=example(net))
    assert_stays(net, (sparsity, sparsity * fraction), scope=scope, target=target)


def test_a_stuck_network_stays_and_says_what_holds_it() -> None:
    net = RandomNet((Block("Recurrent", 4, 0),), flatten=True, hidden=5).double()
    gsprune.prune_step(net, 0.875, example_inputs=example(net))  # torch refuses an LSTM as narrow as its projection
    told = assert_stays(net, (0.875, 0.5))
    held = "limited by sizes written into the code (body.0.cell, body.0.cell:2)"
    assert [str(warning.message).rpartition("cannot be reached: ")[2] for warning in told] == [held] * 2


def assert_stays(net: RandomNet, requests: tuple[float, ...], **options: Any) -> list[warnings.WarningMessage]:
    """Nothing changes; returns the warnings, each of which is the one of a network that can lose nothing more."""
    told: list[warnings.WarningMessage] = []
    before = snapshot(net)
    for request in requests:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            report = gsprune.prune_step(net, request, **options)
        assert not report.changed
        assert_told_only_what_holds_everything(caught, report, net)
        told += caught
    assert snapshot(net) == before
    return told


def assert_told_only_what_holds_everything(
    caught: list[warnings.WarningMessage], report: gsprune.PruneReport, net: RandomNet
) -> None:
    """A repeated request may warn that more was asked for than can ever go, and only where no group can lose more."""
    if not caught:
        return
    (warning,) = caught
    assert warning.category is gsprune.PruneWarning
    assert str(warning.message) == f"nothing more of RandomNet can be removed: {report.shortfall}"
    written = {
        name for held in report.protected if "a size written into the code" in held.reason for name in held.names
    }
    causes = report.shortfall.causes if report.shortfall is not None else {}
    assert causes.keys() <= {"sizes written into the code", "their last unit"}
    assert set(causes.get("sizes written into the code", ())) <= written
    state = session_of(net)
    assert state is not None
    assert state.graph is not None
    assert all(group.name in written or group.num_units == 1 for group in state.graph.groups)


@given(networks(KINDS), st.floats(0.1, 0.5), st.floats(0.5, 0.9))
def test_copies_and_pickles_prune_on_as_the_original(net: RandomNet, first: float, second: float) -> None:
    gsprune.prune_step(net, first, example_inputs=example(net))
    others = [copy.deepcopy(net)]
    if not any(is_parametrized(module) for module in net.modules()):  # torch does not pickle those
        others.append(pickle.loads(pickle.dumps(net)))
    reports = [gsprune.prune_step(model, second) for model in (net, *others)]
    for report, model in zip(reports[1:], others, strict=True):
        assert [g.removed.tolist() for g in report.groups] == [g.removed.tolist() for g in reports[0].groups]
        for a, b in zip(model.state_dict().values(), net.state_dict().values(), strict=True):
            assert torch.equal(a, b)


@given(networks(KINDS), SPARSITIES)
def test_followers_equal_the_model_after_a_hard_copy(net: RandomNet, sparsity: float) -> None:
    target = copy.deepcopy(net)
    average = torch.optim.swa_utils.AveragedModel(net)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.add_(1.0)
    gsprune.prune_step(net, sparsity, followers=(target, average), example_inputs=example(net))
    target.load_state_dict(net.state_dict())
    for follower in (target, average.module):
        for a, b in zip(outputs_of(follower.eval(), example(net)), outputs_of(net.eval(), example(net)), strict=True):
            assert torch.equal(a, b)
