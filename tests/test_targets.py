"""Requests over random networks: what was asked for is reached to within one channel, and never more goes."""

from __future__ import annotations

import math
import warnings
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import KINDS, RandomNet, example, networks
from smaller_graphs import pruned_graph

import gsprune
from gsprune.rewrite.session import session_of
from gsprune.tracing.graph import Graph, Group

NETWORKS = networks(KINDS, max_blocks=3)
SPARSITIES = st.floats(0.0, 0.99)
FEWER = settings(max_examples=max(5, settings().max_examples // 3))
Count = int | dict[str, int]


def counts(graph: Graph, most: int) -> st.SearchStrategy[Count]:
    """A number for all groups, or one for a group and one for the rest or none."""
    number, name = st.integers(1, most), st.sampled_from([group.name for group in graph.groups])
    pairs = st.builds(lambda one, a, b: {one: a, "*": b}, name, number, number)
    return st.just(1) | number | pairs | st.builds(lambda one, a: {one: a}, name, number)


def value_of(spec: float | dict[str, Any], group: Group, default: Any) -> Any:
    """What a number, or a mapping of globs, says of a group: the first that matches counts."""
    if not isinstance(spec, dict):
        return spec
    layers = {member.tensor.rpartition(".")[0] or member.tensor for member in group.members if member.role == "out"}
    names = {group.name, *layers}
    return next((value for glob, value in spec.items() if any(fnmatchcase(name, glob) for name in names)), default)


def step(net: RandomNet, sparsity: Any, **options: Any) -> tuple[Graph, gsprune.PruneReport]:
    """The graph after a step, and its report; a request that can do nothing may warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gsprune.PruneWarning)
        report = gsprune.prune_step(net, sparsity, example_inputs=example(net), **options)
    state = session_of(net)
    assert state is not None
    assert state.graph is not None
    return state.graph, report


def held(report: gsprune.PruneReport) -> set[str]:
    """Groups that sizes in the code hold fast."""
    return {name for item in report.protected if "written into the code" in item.reason for name in item.names}


@FEWER
@given(net=NETWORKS, sparsity=SPARSITIES, other=SPARSITIES, data=st.data())
def test_local_widths_are_those_of_the_formula(
    net: RandomNet, sparsity: float, other: float, data: st.DataObject
) -> None:
    before = gsprune.trace(net, example(net))
    if not before.groups:
        return
    first = before.groups[0].name
    asked = data.draw(st.sampled_from([sparsity, {first: sparsity, "*": other}, {first: sparsity}]))
    round_to, least = data.draw(counts(before, 4)), data.draw(counts(before, 4))
    ignored = data.draw(st.sampled_from([(), (before.groups[-1].name,)]))
    after, report = step(net, asked, round_to=round_to, min_channels=least, ignore=ignored)
    for old, new in zip(before.groups, after.groups, strict=True):
        if new.name in held(report) or new.name in ignored:
            assert new.width == old.width
            continue
        multiple = math.lcm(value_of(round_to, old, 1), old.width_per_unit)
        wanted = old.width - math.floor(old.width * value_of(asked, old, 0.0) + 1e-9)
        wanted = max(wanted, value_of(least, old, 1))
        assert new.width == min(old.width, math.ceil(wanted / multiple) * multiple)


def cost(net: RandomNet, graph: Graph, target: str) -> float:
    """What is counted, of the network that a graph describes."""
    if target == "channels":
        return sum(group.width for group in graph.groups)
    if target == "macs":
        return graph.macs()
    return sum(math.prod(graph.shapes[name]) for name, _ in net.named_parameters())


def without_a_step(graph: Graph, group: Group, round_to: int, least: int) -> Graph | None:
    """The graph with the group at its next lower width; None where there is none."""
    multiple = math.lcm(round_to, group.width_per_unit)
    lower = (group.width - 1) // multiple * multiple
    if lower < max(least, 1):
        return None
    return pruned_graph(graph, {group.name: np.arange((group.width - lower) // group.width_per_unit)})


@pytest.mark.parametrize("target", ["channels", "params", "macs"])
@FEWER
@given(net=NETWORKS, sparsity=SPARSITIES, scope=st.sampled_from(["local", "global", "isomorphic"]), data=st.data())
def test_a_budget_is_never_overrun_and_met_to_within_one_channel(
    target: str, net: RandomNet, sparsity: float, scope: str, data: st.DataObject
) -> None:
    before = gsprune.trace(net, example(net))
    if not before.groups:
        return
    round_to, least = data.draw(counts(before, 3)), data.draw(counts(before, 3))
    after, report = step(net, sparsity, target=target, scope=scope, round_to=round_to, min_channels=least)
    if held(report):
        return  # what one plan could not take, the next one takes elsewhere
    budget = sparsity * cost(net, before, target)
    gone = cost(net, before, target) - cost(net, after, target)
    assert gone <= budget + 1e-6 * budget + 1e-9
    assert report.sparsity == pytest.approx(gone / cost(net, before, target), abs=1e-9)
    if target == "macs" and all(group.num_units > 1 for group in after.groups):  # of one, einsum makes a mere product
        assert after.macs() == pytest.approx(gsprune.trace(net, example(net)).macs())
    if target == "params":
        assert cost(net, after, target) == sum(parameter.numel() for parameter in net.parameters())
    if target == "channels" and scope == "local":
        return  # of every group its own share: the formula above
    lower = [without_a_step(after, g, value_of(round_to, g, 1), value_of(least, g, 1)) for g in after.groups]
    steps = [cost(net, after, target) - cost(net, graph, target) for graph in lower if graph is not None]
    pools = len({group.kind for group in before.groups}) if scope == "isomorphic" and target == "channels" else 1
    if steps:
        assert gone > budget - pools * max(steps) - 1e-6 * budget - 1e-9
