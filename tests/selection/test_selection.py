"""Which units go: tables, invariants over random graphs, and what bad options say."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from by_group import select
from hand_made import BACKEND, graph_of, member, small_graph, small_net
from hypothesis import given
from hypothesis import strategies as st
from smaller_graphs import pruned_graph

from gsprune import trace
from gsprune.arrays import IntArray
from gsprune.networks import ActorCritic, build_encoder, example_frames
from gsprune.selection import CostModel, dense_shapes, group_layers, matching_groups
from gsprune.tracing.graph import Graph, Group, Protected

SCOPES = ("local", "global", "isomorphic")
TARGETS = ("channels", "params", "macs")
BUDGETS = [pair for pair in itertools.product(SCOPES, TARGETS) if pair != ("local", "channels")]

Scores = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


def chain_graph(widths: list[int], kinds: list[str] | None = None, units_of: list[int] | None = None) -> Graph:
    """Matrices in a row: group i is what matrix i puts out and matrix i + 1 takes in; 3 inputs, 5 outputs."""
    sizes = [3, *widths, 5]
    groups = [
        Group(
            f"layers.{i}",
            width // (units_of or [1] * len(widths))[i],
            (units_of or [1] * len(widths))[i],
            (
                member(f"layers.{i}.weight", 0, np.arange(width) // (units_of or [1] * len(widths))[i], "out"),
                member(f"layers.{i}.bias", 0, np.arange(width) // (units_of or [1] * len(widths))[i], "out"),
                member(f"layers.{i + 1}.weight", 1, np.arange(width) // (units_of or [1] * len(widths))[i], "in"),
            ),
            "linear" if kinds is None else kinds[i],
        )
        for i, width in enumerate(widths)
    ]
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        shapes[f"layers.{i}.weight"] = (fan_out, fan_in)
        shapes[f"layers.{i}.bias"] = (fan_out,)
    uses = {f"layers.{i}.weight": float(i + 1) for i in range(len(sizes) - 1)}
    return graph_of(groups, shapes, uses)


def widths_of(graph: Graph) -> dict[str, int]:
    return {group.name: group.width for group in graph.groups}


def random_scores(graph: Graph, seed: int = 0) -> Scores:
    generator = np.random.default_rng(seed)
    return {group.name: generator.random(group.num_units, dtype=np.float32) for group in graph.groups}


def pruned(
    graph: Graph,
    sparsity: float | Mapping[str, float],
    initial: Mapping[str, int] | None = None,
    seed: int = 0,
    **options: Any,
) -> Graph:
    options.setdefault("parameters", graph.shapes)
    initial = widths_of(graph) if initial is None else initial
    return pruned_graph(graph, select(graph, random_scores(graph, seed), initial, sparsity, backend=BACKEND, **options))


def params(graph: Graph) -> int:
    return sum(math.prod(shape) for shape in graph.shapes.values())


def cost(graph: Graph, target: str) -> float:
    if target == "channels":
        return sum(group.width for group in graph.groups)
    return params(graph) if target == "params" else graph.macs()


@pytest.fixture(scope="module")
def impoola() -> Graph:
    return trace(ActorCritic(build_encoder("impoola", 3), 15), example_frames(1))


# --- local scope, channels


@pytest.mark.parametrize(
    ("width", "sparsity", "options", "kept"),
    [
        (10, 0.0, {}, 10),
        (10, 0.25, {}, 8),
        (10, 0.3, {}, 7),  # 10 * 0.3 is 3 to the last bit only with the tolerance of the floor
        (30, 0.1, {}, 27),
        (10, 0.99, {}, 1),
        (10, 0.999, {"min_channels": 4}, 4),
        (16, 0.1, {"round_to": 8}, 16),
        (16, 0.5, {"round_to": 8}, 8),
        (16, 0.3, {"round_to": 4}, 12),
        (10, 0.9, {"round_to": 8}, 8),
        (6, 0.9, {"round_to": 8}, 6),  # narrower than the multiple: left alone
        (12, 0.1, {"round_to": 8}, 12),  # 11 rounds up to 16, above the present width
        (16, 0.9, {"round_to": 4, "min_channels": 6}, 8),
        (4, 0.9, {"min_channels": 9}, 4),
    ],
)
def test_local_width(width: int, sparsity: float, options: dict[str, int], kept: int) -> None:
    assert pruned(chain_graph([width]), sparsity, **options).groups[0].width == kept


def test_widths_are_multiples_of_what_a_unit_stands_for() -> None:
    graph = chain_graph([24], units_of=[4])
    assert pruned(graph, 0.3).groups[0].width == 20  # 17 rounds up to a multiple of 4
    assert pruned(graph, 0.3, round_to=8).groups[0].width == 24
    assert pruned(graph, 0.5, round_to=6).groups[0].width == 12
    assert pruned(graph, 0.99).groups[0].width == 4


def test_the_lowest_scores_go_and_of_equal_ones_the_higher_index() -> None:
    graph = chain_graph([5])
    for scores, gone in (([3, 1, 2, 5, 4], [1, 2]), ([1, 1, 1, 1, 1], [3, 4]), ([2, 1, 1, 1, 9], [2, 3])):
        removed = select(graph, {"layers.0": np.array(scores, dtype=np.float32)}, {"layers.0": 5}, 0.4, backend=BACKEND)
        assert removed["layers.0"].tolist() == gone


def test_the_first_matching_glob_counts_and_the_rest_is_left_alone() -> None:
    graph = chain_graph([10, 10, 10])
    after = pruned(graph, {"layers.1": 0.5, "layers.[01]": 0.2})
    assert list(widths_of(after).values()) == [8, 5, 10]
    after = pruned(graph, 0.5, round_to={"layers.2": 8}, min_channels={"layers.0": 7})
    assert list(widths_of(after).values()) == [7, 5, 8]


def test_a_modules_name_stands_for_what_is_inside() -> None:
    assert list(widths_of(pruned(chain_graph([10, 10]), {"layers": 0.5})).values()) == [5, 5]


def test_frozen_groups_keep_their_width() -> None:
    for scope, target in itertools.product(SCOPES, TARGETS):
        after = pruned(chain_graph([10, 10]), 0.4, scope=scope, target=target, frozen={"layers.0"})
        assert after.groups[0].width == 10
        assert after.groups[1].width < 10


def test_groups_are_found_by_their_own_name_and_by_layers_whose_outputs_they_hold() -> None:
    net = small_net()
    graph = small_graph(net)
    assert group_layers(graph.groups[0]) == {"0", "1"}
    assert matching_groups(graph, "1") == ["0"]
    assert matching_groups(graph, "[03]") == ["0", "3"]
    assert matching_groups(graph, "6") == []  # it only takes the group in


# --- budgets


@pytest.mark.parametrize(("scope", "target"), BUDGETS)
@pytest.mark.parametrize("sparsity", [0.1, 0.37, 0.5, 0.8])
def test_a_budget_is_met_to_within_the_dearest_channel_and_never_overrun(
    scope: str, target: str, sparsity: float
) -> None:
    graph = chain_graph([13, 40, 7, 24])
    after = pruned(graph, sparsity, scope=scope, target=target)
    gone = cost(graph, target) - cost(after, target)
    dearest = max(
        cost(after, target) - cost(pruned_graph(after, {group.name: np.array([0])}), target) for group in after.groups
    )
    pools = 1 if scope != "isomorphic" or target != "channels" else len({group.kind for group in graph.groups})
    assert gone <= sparsity * cost(graph, target) + 1e-6
    assert gone > sparsity * cost(graph, target) - pools * dearest - 1e-6


def test_local_ratios_differ_by_less_than_one_channel() -> None:
    graph = chain_graph([13, 40, 7, 24])
    for target in ("params", "macs"):
        after = pruned(graph, 0.6, target=target)
        gone = [
            (before.width - now.width, before.width) for before, now in zip(graph.groups, after.groups, strict=True)
        ]
        low = max(removed / width for removed, width in gone)
        high = min((removed + 1) / width for removed, width in gone)
        assert low <= high


def test_equal_groups_advance_in_the_order_of_the_network() -> None:
    graph = chain_graph([10, 10])
    total = params(graph)
    one_channel = params(graph) - params(pruned_graph(graph, {"layers.0": np.array([9])}))
    after = pruned(graph, one_channel / total, target="params")
    assert list(widths_of(after).values()) == [9, 10]


def test_a_global_threshold_takes_the_lowest_scores_of_all() -> None:
    graph = chain_graph([4, 4])
    scores: Scores = {
        "layers.0": np.array([0.1, 0.2, 0.3, 9.0], dtype=np.float32),
        "layers.1": np.array([5.0, 0.4, 6.0, 7.0], dtype=np.float32),
    }
    removed = select(graph, scores, widths_of(graph), 0.5, scope="global", backend=BACKEND)
    assert {name: units.tolist() for name, units in removed.items()} == {"layers.0": [0, 1, 2], "layers.1": [1]}


def test_a_global_threshold_passes_over_groups_at_their_floor() -> None:
    graph = chain_graph([4, 4])
    scores: Scores = {"layers.0": np.zeros(4, dtype=np.float32), "layers.1": np.ones(4, dtype=np.float32)}
    removed = select(graph, scores, widths_of(graph), 0.5, scope="global", min_channels=2, backend=BACKEND)
    assert {name: units.tolist() for name, units in removed.items()} == {"layers.0": [2, 3], "layers.1": [2, 3]}


def test_isomorphic_scope_compares_within_kinds_alone() -> None:
    graph = chain_graph([4, 4, 8], kinds=["a", "a", "b"])
    scores: Scores = {
        "layers.0": np.zeros(4, dtype=np.float32),
        "layers.1": np.ones(4, dtype=np.float32),
        "layers.2": np.full(8, -5.0, dtype=np.float32),
    }
    removed = select(graph, scores, widths_of(graph), 0.25, scope="isomorphic", backend=BACKEND)
    assert {name: len(units) for name, units in removed.items()} == {"layers.0": 2, "layers.2": 2}


def test_params_count_only_parameters_and_tied_ones_once() -> None:
    net = small_net()
    graph = small_graph(net)
    model = CostModel.of_params(graph, [name for name, _ in net.named_parameters()])
    assert model(np.array([6, 4])) == sum(p.numel() for p in net.parameters())
    assert CostModel.of_macs(graph)(np.array([6, 4])) == graph.macs()


graphs = st.builds(
    lambda widths, kinds, units: chain_graph(
        [width * unit for width, unit in zip(widths, units, strict=True)], kinds, units
    ),
    *(
        st.shared(st.integers(1, 5), key="n").flatmap(lambda n, each=each: st.lists(each, min_size=n, max_size=n))
        for each in (st.integers(1, 40), st.sampled_from("ab"), st.sampled_from([1, 1, 1, 2, 3, 4]))
    ),
)
options = st.fixed_dictionaries(
    {
        "scope": st.sampled_from(SCOPES),
        "target": st.sampled_from(TARGETS),
        "round_to": st.sampled_from([1, 1, 2, 4, 8]),
        "min_channels": st.sampled_from([1, 1, 2, 5]),
    }
)
sparsities = st.floats(0, 0.99)


@given(graphs, options, sparsities)
def test_the_cost_model_agrees_with_the_pruned_graph(graph: Graph, options: dict[str, Any], sparsity: float) -> None:
    after = pruned(graph, sparsity, **options)
    units = np.array([group.num_units for group in after.groups])
    assert CostModel.of_params(graph, graph.shapes)(units) == params(after)
    assert CostModel.of_macs(graph)(units) == after.macs()
    assert dense_shapes(after, widths_of(graph)) == graph.shapes


@given(graphs, options, sparsities)
def test_widths_respect_floor_multiple_and_target(graph: Graph, options: dict[str, Any], sparsity: float) -> None:
    after = pruned(graph, sparsity, **options)
    for before, now in zip(graph.groups, after.groups, strict=True):
        assert 1 <= now.width <= before.width
        if now.width < before.width:
            assert now.width >= options["min_channels"]
            assert now.width % options["round_to"] == 0
    gone = cost(graph, options["target"]) - cost(after, options["target"])
    assert gone <= sparsity * cost(graph, options["target"]) + 1e-6


@given(graphs, options, sparsities, st.floats(0, 1))
def test_a_repeated_or_smaller_request_is_the_identity(
    graph: Graph, options: dict[str, Any], sparsity: float, fraction: float
) -> None:
    after = pruned(graph, sparsity, seed=1, **options)
    for again in (sparsity, sparsity * fraction):
        # New scores: those of the first step are gone with the weights they were made of.
        assert widths_of(pruned(after, again, widths_of(graph), seed=2, **options)) == widths_of(after)


@given(graphs, options, sparsities, st.floats(0, 1))
def test_local_scope_reaches_the_same_widths_in_two_steps_as_in_one(
    graph: Graph, options: dict[str, Any], sparsity: float, fraction: float
) -> None:
    options["scope"] = "local"
    first = pruned(graph, sparsity * fraction, seed=1, **options)
    second = pruned(first, sparsity, widths_of(graph), seed=2, **options)
    assert widths_of(second) == widths_of(pruned(graph, sparsity, **options))


@given(graphs, options, sparsities, st.floats(0, 1))
def test_more_sparsity_never_gives_more_width_in_local_scope(
    graph: Graph, options: dict[str, Any], sparsity: float, fraction: float
) -> None:
    options["scope"] = "local"
    less, more = pruned(graph, sparsity * fraction, **options), pruned(graph, sparsity, **options)
    assert all(a.width >= b.width for a, b in zip(less.groups, more.groups, strict=True))


@given(graphs, options, sparsities)
def test_the_best_scores_of_a_group_are_kept(graph: Graph, options: dict[str, Any], sparsity: float) -> None:
    scores = random_scores(graph)
    removed: dict[str, IntArray] = select(
        graph, scores, widths_of(graph), sparsity, backend=BACKEND, parameters=graph.shapes, **options
    )
    for name, units in removed.items():
        kept = np.delete(scores[name], units)
        assert units.tolist() == sorted(set(units.tolist()))
        assert scores[name][units].max() <= kept.min()


# --- bad options


@pytest.mark.parametrize(
    ("sparsity", "options", "error", "message"),
    [
        (1.0, {}, ValueError, r"`sparsity` must be in \[0, 1\)"),
        (-0.1, {}, ValueError, r"`sparsity` must be in \[0, 1\)"),
        (math.nan, {}, ValueError, r"`sparsity` must be in \[0, 1\)"),
        ("0.5", {}, TypeError, r"`sparsity` must be a number"),
        (True, {}, TypeError, r"`sparsity` must be a number"),
        ({"layers.0": 1.5}, {}, ValueError, r"`sparsity\['layers\.0'\]`"),
        ({"layer.0": 0.5}, {}, ValueError, r"'layer\.0', which matches no group.*near matches: 'layers\.0'"),
        ({"out": 0.5}, {}, ValueError, r"'out', whose channels are never removed \(output of the network\)"),
        (0.5, {"round_to": 0}, ValueError, r"`round_to` must be at least 1, got 0"),
        (0.5, {"round_to": 1.5}, TypeError, r"`round_to` must be a whole number"),
        (0.5, {"min_channels": {"layers.*": -1}}, ValueError, r"`min_channels\['layers\.\*'\]` must be at least 1"),
        (0.5, {"min_channels": {"nowhere": 1}}, ValueError, r"`min_channels` names 'nowhere'"),
        (0.5, {"scope": "globe"}, ValueError, r"`scope` must be one of 'local'"),
        (0.5, {"target": "flops"}, ValueError, r"`target` must be one of 'channels'"),
        ({"layers.0": 0.5}, {"scope": "global"}, ValueError, r"mapping only with scope='local'"),
        ({"layers.0": 0.5}, {"target": "macs"}, ValueError, r"mapping only with scope='local'"),
    ],
)
def test_a_bad_option_is_named_with_its_value(
    sparsity: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    graph = chain_graph([8, 8])
    graph = Graph(
        **{
            **{name: getattr(graph, name) for name in graph.__dataclass_fields__},
            "protected": (Protected("output of the network", ("out",), 5),),
        }
    )
    with pytest.raises(error, match=message):
        select(graph, random_scores(graph), widths_of(graph), sparsity, backend=BACKEND, **options)


def test_a_graph_without_groups_gives_nothing() -> None:
    for scope, target in itertools.product(SCOPES, TARGETS):
        graph = graph_of((), {"w": (2, 2)})
        assert select(graph, {}, {}, 0.5, backend=BACKEND, scope=scope, target=target, parameters=["w"]) == {}


@pytest.mark.parametrize(
    ("sparsity", "params_gone", "macs"),
    [(0.5, 0.748, 66.4), (0.55, 0.788, 56.0), (0.7, 0.906, 25.6), (0.8, 0.955, 12.2)],
)
def test_impoola_at_tau_3_costs_what_the_paper_s_schedule_leaves_of_it(
    impoola: Graph, sparsity: float, params_gone: float, macs: float
) -> None:
    after = pruned(impoola, sparsity)
    assert round(1 - params(after) / params(impoola), 3) == params_gone
    assert round(after.macs() / 1e6, 1) == macs
