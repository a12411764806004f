"""Criteria, scopes, targets and files together, on random networks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_networks import KINDS, RandomNet, example, loss_of, networks, outputs_of
from torch import nn

import gsprune
from gsprune.importance import CRITERIA


def with_gradients(net: RandomNet) -> RandomNet:
    loss_of(net, example(net)).backward()
    return net


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


# An einsum over a single channel reaches torch as an elementwise product, whose operations no trace counts.
COUNTED = tuple(kind for kind in KINDS if kind != "Crossed")


@pytest.mark.filterwarnings("ignore::gsprune.errors.PruneWarning")  # more asked for than can go
@given(
    net=networks(COUNTED),
    criterion=st.sampled_from(sorted(set(CRITERIA) - {"bn_scale"})),
    scope=st.sampled_from(["local", "global", "isomorphic"]),
    target=st.sampled_from(["channels", "params", "macs"]),
    sparsity=st.floats(0, 0.95),
)
def test_any_choice_is_not_overrun_and_stays_when_repeated_also_after_loading(
    net: RandomNet,
    criterion: str,
    scope: str,
    target: str,
    sparsity: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with_gradients(net)
    options: dict[str, Any] = {
        "importance": criterion,
        "scope": scope,
        "target": target,
        "example_inputs": example(net),
        "calibration": [example(net, 16, 1)],
    }
    dense, dense_params, dense_macs = copy.deepcopy(net), count(net), gsprune.trace(net, example(net)).macs()
    try:
        report = gsprune.prune_step(net, sparsity, **options)
    except gsprune.ScoreError:
        assert criterion in ("activation", "reconstruction")  # they cannot read every layer
        return
    left = {
        "channels": sum(group.after for group in report.groups) / max(1, sum(group.initial for group in report.groups)),
        "params": report.params_after / dense_params,
        "macs": report.macs_after / dense_macs,
    }
    assert left[target] >= 1 - sparsity - 1e-9
    assert not gsprune.prune_step(net, sparsity, **options).changed
    assert not gsprune.prune_step(net, sparsity / 2, **options).changed
    file = tmp_path_factory.mktemp("checkpoint") / "net.safetensors"
    gsprune.save(net, file)
    gsprune.load(file, into=dense)
    with_gradients(dense)
    assert not gsprune.prune_step(dense, sparsity, **options).changed
    assert gsprune.cost(dense, example(net)).params == report.params_after


@given(net=networks(KINDS), sparsity=st.floats(0.2, 0.9), seed=st.integers(0, 99))
def test_a_loaded_network_equals_the_saved_one_and_goes_on_alike(
    net: RandomNet, sparsity: float, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("checkpoint") / "net.safetensors"
    dense = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters())
    with_gradients(net)
    optimizer.step()
    gsprune.prune_step(net, sparsity / 2, optimizer=optimizer, example_inputs=example(net))
    gsprune.save(net, file, optimizer=optimizer, seed=seed)
    its = torch.optim.Adam(dense.parameters())
    assert gsprune.load(file, into=dense, optimizer=its) == {"seed": seed}
    for model, each in ((net, optimizer), (dense, its)):
        gsprune.prune_step(model, sparsity, optimizer=each, example_inputs=example(net))
        each.zero_grad()
        with_gradients(model)
        each.step()
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(outputs_of(net, example(net)), outputs_of(dense, example(net)), strict=True)
    )
