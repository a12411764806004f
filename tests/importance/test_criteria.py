"""Every criterion against its formula, written out in loops."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from by_group import group_scores
from hand_made import BACKEND, graph_of, member, small_graph, small_net, tensors_of
from smaller_graphs import pruned_graph
from torch import Tensor, nn

import gsprune
from gsprune.arrays import Float64Array
from gsprune.errors import ScoreError
from gsprune.importance import (
    CRITERIA,
    Activation,
    Criterion,
    Importance,
    Random,
    ScoreSource,
    Taylor,
    resolve_importance,
)
from gsprune.tracing.example import Example
from gsprune.tracing.graph import Group

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def scored(importance: object, net: nn.Sequential | None = None, **options: object) -> dict[str, np.ndarray]:
    net = small_net() if net is None else net
    return group_scores(
        resolve_importance(importance),  # type: ignore[arg-type]
        small_graph(net),
        tensors_of(net),
        BACKEND,
        model=net,
        example=Example((X,)),
        **options,
    )


def unit_elements(tensor: Tensor, axis: int, positions: range) -> list[float]:
    return [float(x) for position in positions for x in tensor.select(axis, position).double().reshape(-1)]


def elements_of_unit(net: nn.Sequential, group: str, unit: int, gradient: bool = False) -> list[list[float]]:
    """The elements of one unit in each of the group's weights with two axes or more."""

    def read(parameter: Tensor) -> Tensor:
        tensor = parameter.grad if gradient else parameter.detach()
        assert tensor is not None
        return tensor

    if group == "0":
        held = ((net[0].weight, 0, range(unit, unit + 1)), (net[3].weight, 1, range(unit, unit + 1)))
    else:
        held = ((net[3].weight, 0, range(unit, unit + 1)), (net[6].weight, 1, range(16 * unit, 16 * unit + 16)))
    return [unit_elements(read(parameter), axis, positions) for parameter, axis, positions in held]


def l1(w: list[float], g: list[float]) -> float:
    return sum(abs(x) for x in w)


def l2(w: list[float], g: list[float]) -> float:
    return math.sqrt(sum(x * x for x in w))


def taylor(w: list[float], g: list[float]) -> float:
    return sum(abs(x * y) for x, y in zip(w, g, strict=True))


def joint_taylor(w: list[float], g: list[float]) -> float:
    return abs(sum(x * y for x, y in zip(w, g, strict=True)))


def hessian(w: list[float], g: list[float]) -> float:
    return 0.5 * sum(x * x * y * y for x, y in zip(w, g, strict=True))


LITERAL = [("l1", l1), ("l2", l2), ("taylor", taylor), (Taylor(joint=True), joint_taylor), ("hessian", hessian)]


@pytest.mark.parametrize(("criterion", "formula"), LITERAL, ids=[formula.__name__ for _, formula in LITERAL])
def test_score_is_the_mean_over_members_of_the_formula(criterion: object, formula: object) -> None:
    net = small_net()
    for group, scores in scored(criterion, net).items():
        for unit, score in enumerate(scores):
            pairs = zip(elements_of_unit(net, group, unit), elements_of_unit(net, group, unit, True), strict=True)
            expected = np.mean([formula(w, g) for w, g in pairs])  # type: ignore[operator]
            assert score == pytest.approx(expected, rel=1e-6)


def test_lamp_divides_the_squared_norm_by_what_is_not_less_important() -> None:
    net = small_net()
    for group, scores in scored("lamp", net).items():
        squares = [
            np.mean([sum(x * x for x in w) for w in elements_of_unit(net, group, unit)]) for unit in range(len(scores))
        ]
        for unit, square in enumerate(squares):
            assert scores[unit] == pytest.approx(square / sum(other for other in squares if other >= square), rel=1e-6)


def test_bn_scale_is_the_magnitude_of_the_norms_scale() -> None:
    net = small_net()
    with torch.no_grad():
        net[1].weight[2] = -3.0
    assert scored("bn_scale", net, frozen={"3"})["0"] == pytest.approx(net[1].weight.detach().abs().numpy())


def test_bn_scale_without_a_norm_is_an_error_that_names_the_group() -> None:
    with pytest.raises(ScoreError, match=r"group '3' has none.*ignore=\('3',\)"):
        scored("bn_scale")


def test_a_prelu_is_not_a_norm() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.PReLU(2))
    group = Group("0", 2, 1, (member("0.weight", 0, range(2), "out"), member("1.weight", 0, range(2), "out")), "")
    graph = graph_of((group,), {name: tuple(t.shape) for name, t in tensors_of(net).items()})
    with pytest.raises(ScoreError, match="has none"):
        group_scores(Importance("bn_scale"), graph, tensors_of(net), BACKEND, model=net)


def test_fpgm_is_the_sum_of_distances_to_the_other_units() -> None:
    net = small_net()
    for group, scores in scored("fpgm", net).items():
        units = [elements_of_unit(net, group, unit) for unit in range(len(scores))]
        for unit, score in enumerate(scores):
            per_member = [sum(math.dist(units[unit][m], other[m]) for other in units) for m in range(len(units[unit]))]
            assert score == pytest.approx(np.mean(per_member), rel=1e-6)


def test_equal_units_are_at_distance_zero_exactly() -> None:
    net = small_net()
    with torch.no_grad():
        net[0].weight.copy_(net[0].weight[:1].expand(6, -1, -1, -1))
        net[3].weight.copy_(net[3].weight[:, :1].expand(-1, 6, -1, -1))
    assert scored("fpgm", net)["0"].tolist() == [0.0] * 6


def test_activation_is_the_mean_magnitude_of_the_roots_output() -> None:
    net = small_net().eval()
    with torch.no_grad():
        first = net[0](X).abs().double().mean(dim=(0, 2, 3))
        second = net[:4](X).abs().double().mean(dim=(0, 2, 3))
    scores = scored("activation", net)
    assert scores["0"] == pytest.approx(first.numpy(), rel=1e-6)
    assert scores["3"] == pytest.approx(second.numpy(), rel=1e-6)


def test_activation_over_batches_weighs_every_element_alike() -> None:
    net = small_net()
    whole = scored(Activation(batches=[X]), net)
    parts = scored(Activation(batches=[X[:1], (X[1:],)], forward=lambda model, x: model(x)), net)
    for group, scores in whole.items():
        assert parts[group] == pytest.approx(scores, rel=1e-6)


def test_activation_leaves_modes_statistics_hooks_and_generators_alone() -> None:
    net = small_net().train()
    net[3].eval()
    before = copy.deepcopy(net.state_dict())
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    scored(Importance(Activation(batches=[X], forward=lambda model, x: model(x + torch.rand(1)))), net)
    assert torch.rand(1) == expected
    assert [module.training for module in net] == [True, True, True, False, True, True, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not any(module._forward_hooks for module in net)


def test_activation_without_an_input_says_how_to_give_one() -> None:
    net = small_net()
    with pytest.raises(ScoreError, match="give example_inputs"):
        group_scores(Importance("activation"), small_graph(net), tensors_of(net), BACKEND, model=net)


def test_random_has_a_generator_of_its_own() -> None:
    net = small_net()
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    scores = scored("random", net)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert all(np.array_equal(scores[name], again) for name, again in scored("random").items())
    assert not np.array_equal(scores["0"], scored(Random(seed=1))["0"])


def test_random_draws_anew_as_the_network_shrinks_and_alike_for_the_same_network() -> None:
    graph = small_graph(small_net())
    smaller = pruned_graph(graph, {graph.groups[1].name: np.array([0])})
    importance = Importance("random")
    first, again = (group_scores(importance, graph, {}, BACKEND) for _ in range(2))
    later = group_scores(importance, smaller, {}, BACKEND)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.isin(later["0"], first["0"]).any()


def test_random_does_not_depend_on_which_groups_are_scored() -> None:
    graph = small_graph(small_net())
    whole, part = (group_scores(Importance("random"), graph, {}, BACKEND, frozen=frozen) for frozen in ((), ("0",)))
    assert np.array_equal(whole["3"], part["3"])


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (0.5, TypeError), (True, TypeError), ("one", TypeError)])
def test_a_bad_seed_is_refused(seed: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="`seed` must be"):
        Random(seed=seed)


def test_a_state_of_another_criterion_is_refused() -> None:
    with pytest.raises(ValueError, match="must be empty"):
        Importance("l1").load_state_dict({"generator": 1})


@pytest.mark.parametrize("criterion", ["taylor", "hessian"])
def test_a_missing_gradient_names_weight_group_and_way_out(criterion: str) -> None:
    net = small_net()
    net[6].weight.grad = None
    with pytest.raises(ScoreError, match=r"'6\.weight' \(group '3'\).*after loss\.backward\(\)"):
        scored(criterion, net)


@pytest.mark.parametrize(
    ("criterion", "formula"), [("taylor", taylor), (Taylor(joint=True), joint_taylor), ("hessian", hessian)]
)
def test_a_frozen_weight_without_a_gradient_does_not_count(criterion: object, formula: object) -> None:
    net = small_net()
    net[3].weight.requires_grad_(False).grad = None
    scores = scored(criterion, net)
    for group, weight, axis, width in (("0", net[0].weight, 0, 1), ("3", net[6].weight, 1, 16)):
        units = [range(width * unit, width * (unit + 1)) for unit in range(weight.shape[axis] // width)]
        expected = [
            formula(unit_elements(weight.detach(), axis, unit), unit_elements(weight.grad, axis, unit))  # type: ignore[operator]
            for unit in units
        ]
        assert scores[group] == pytest.approx(expected)


def test_a_weight_counts_again_once_it_has_a_gradient() -> None:
    net = small_net()
    gradient, net[3].weight.grad = net[3].weight.grad, None
    source = small_graph(net)
    net[3].weight.requires_grad_(False)
    importance = Importance("taylor")
    without = group_scores(importance, source, tensors_of(net), BACKEND, model=net)
    net[3].weight.requires_grad_(True).grad = gradient
    again = group_scores(importance, source, tensors_of(net), BACKEND, model=net)
    assert again["0"] == pytest.approx(scored("taylor")["0"])
    assert again["0"] != pytest.approx(without["0"])


@pytest.mark.parametrize("criterion", ["taylor", "hessian"])
def test_a_group_of_frozen_weights_alone_is_an_error_with_a_way_out(criterion: str) -> None:
    net = small_net()
    for layer in (net[0], net[3]):
        layer.weight.requires_grad_(False).grad = None
    with pytest.raises(ScoreError, match=r"group '0', whose weights are all frozen.*ignore=\('0',\)"):
        scored(criterion, net)
    assert set(scored(criterion, net, frozen={"0"})) == {"3"}


def test_a_sparse_gradient_is_refused_by_name() -> None:
    net = small_net()
    assert net[6].weight.grad is not None
    net[6].weight.grad = net[6].weight.grad.to_sparse()
    with pytest.raises(ScoreError, match=r"gradient of '6\.weight' \(group '3'\), which is torch\.sparse_coo"):
        scored("taylor", net)


def test_frozen_groups_are_not_scored() -> None:
    net = small_net()
    net[6].weight.grad = None
    assert set(scored("taylor", net, frozen={"3"})) == {"0"}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_names_the_group(bad: float) -> None:
    net = small_net()
    with torch.no_grad():
        net[6].weight[0, 17] = bad
    with pytest.raises(
        ScoreError, match=r"`importance` 'l1': scores of group '3' are NaN .* 1 of 4 units \(first: 1\)"
    ):
        scored("l1", net)


def test_an_overflow_of_float32_names_the_group() -> None:
    net = small_net(torch.float64)
    with torch.no_grad():
        net[0].weight[3] = 1e39
    with pytest.raises(ScoreError, match=r"scores of group '0'.*\(first: 3\)"):
        scored("l1", net, frozen={"3"})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_weights_are_summed_in_float64(dtype: torch.dtype) -> None:
    net = small_net()
    with torch.no_grad():
        net[6].weight.fill_(1 + 2**-7)
    low = copy.deepcopy(net).to(dtype)
    scores = group_scores(resolve_importance("l1"), small_graph(low), tensors_of(low), BACKEND)
    exact = copy.deepcopy(low).double()
    expected = group_scores(resolve_importance("l1"), small_graph(exact), tensors_of(exact), BACKEND)
    assert all(np.array_equal(scores[name], expected[name]) for name in scores)


def test_biases_norms_and_buffers_do_not_count() -> None:
    net = small_net()
    before = scored("l1", net)
    with torch.no_grad():
        for tensor in (net[0].bias, net[1].weight, net[1].bias, net[1].running_mean, net[3].bias):
            tensor.fill_(100.0)
    after = scored("l1", net)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_group_without_weights_is_an_error_with_a_way_out() -> None:
    tensors = {"token": nn.Parameter(torch.ones(3))}
    group = Group("token", 3, 1, (member("token", 0, range(3), "out"),), "")
    with pytest.raises(ScoreError, match=r"group 'token'.*ties token.*ignore=\('token',\)"):
        group_scores(Importance(), graph_of((group,), {"token": (3,)}), tensors, BACKEND)


def test_positions_of_other_groups_on_a_shared_axis_do_not_count() -> None:
    weight = nn.Parameter(torch.arange(1.0, 11.0).reshape(2, 5))
    left = Group("left", 2, 1, (member("w", 1, [0, -1, 1, -1, -1], "in"),), "")
    right = Group("right", 1, 2, (member("w", 1, [-1, 0, -1, 0, -1], "in"),), "")
    scores = group_scores(Importance("l1"), graph_of((left, right), {"w": (2, 5)}), {"w": weight}, BACKEND)
    assert scores["left"].tolist() == [1.0 + 6.0, 3.0 + 8.0]
    assert scores["right"].tolist() == [2.0 + 7.0 + 4.0 + 9.0]


def test_a_function_of_the_weight_matrix_is_a_criterion() -> None:
    net = small_net()
    scores = scored(lambda matrix: matrix.abs().amax(dim=1), net)
    expected = [np.mean([max(map(abs, w)) for w in elements_of_unit(net, "0", unit)]) for unit in range(6)]
    assert scores["0"] == pytest.approx(expected, rel=1e-6)


def test_scores_that_are_not_finite_name_the_function() -> None:
    def ratio(matrix: Tensor) -> Tensor:
        return matrix.sum(1) / 0

    with pytest.raises(ScoreError, match=r"`importance` ratio: scores of group"):
        scored(ratio, small_net())


def test_a_function_of_a_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"shape \(6,\), one number per row of the weight '0\.weight'.*got \(\)"):
        scored(lambda matrix: matrix.sum())


class Spread(Criterion):
    """A criterion of one's own, with all there is to read: the range of each unit's weights in the root."""

    def statistics(self, source: ScoreSource) -> dict[str, Float64Array]:
        statistics = {}
        for group in source.groups:
            rows = source.tensors[group.root.tensor].detach().movedim(group.root.axis, 0).flatten(1).double()
            statistics[group.name] = (rows.amax(1) - rows.amin(1)).numpy()[None, :]
        return statistics


def test_a_subclass_is_a_criterion() -> None:
    net = small_net()
    rows = net[3].weight.detach().flatten(1)
    assert scored(Spread(), net)["3"] == pytest.approx((rows.amax(1) - rows.amin(1)).numpy())


class Wrong(Criterion):
    def statistics(self, source: ScoreSource) -> dict[str, Float64Array]:
        return {group.name: np.zeros(group.num_units) for group in source.groups}


def test_a_criterion_of_a_wrong_shape_is_an_error_that_names_it() -> None:
    with pytest.raises(ScoreError, match=r"Wrong must give \(members, 6\) statistics for group '0', got shape \(6,\)"):
        scored(Wrong())


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda rows: rows.tolist(), None),
        (lambda rows: torch.from_numpy(rows).bfloat16().requires_grad_(), None),
        (lambda rows: rows > 0, None),
        (
            lambda rows: rows * 1j,
            r"Converted.statistics\(\) must return real numbers for group '0', got ndarray of c",
        ),
        (lambda rows: None, "must return real numbers for group '0', got NoneType of object"),
        (lambda rows: [[1, 2], [3]], "must return an array for group '0': .*inhomogeneous"),
    ],
)
def test_statistics_of_any_kind_of_array_are_taken_and_others_are_named(convert: Any, message: str | None) -> None:
    class Converted(Criterion):
        def statistics(self, source: ScoreSource) -> dict[str, Float64Array]:
            return {group.name: convert(np.arange(group.num_units)[None].astype(np.float64)) for group in source.groups}

    if message is None:
        assert scored(Converted())["0"].argmin() == 0
    else:
        with pytest.raises(ScoreError, match=message):
            scored(Converted())


def test_a_criterion_without_statistics_is_named() -> None:
    class Nothing(Criterion):
        def statistics(self, source: ScoreSource) -> Any:
            return None

    with pytest.raises(ScoreError, match=r"Nothing.statistics\(\) must return a mapping .*, got NoneType"):
        scored(Nothing())


def test_a_function_must_return_real_numbers() -> None:
    with pytest.raises(ValueError, match="got complex numbers"):
        scored(lambda matrix: matrix.sum(1) * 1j)


def test_the_scores_are_float32_and_one_per_unit() -> None:
    for name in set(CRITERIA) - {"bn_scale"}:
        scores = scored(name, calibration=[Example((X,))])
        assert {group: (s.dtype, s.shape) for group, s in scores.items()} == {
            "0": (np.dtype(np.float32), (6,)),
            "3": (np.dtype(np.float32), (4,)),
        }


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("tailor", ValueError, r"`importance` must be one of .*got 'tailor'; did you mean 'taylor'"),
        (3, TypeError, "`importance` must be a name"),
        (Spread, TypeError, "a Criterion object"),
    ],
)
def test_an_unknown_importance_says_what_there_is(spec: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve_importance(spec)  # type: ignore[arg-type]


def test_unknown_reductions_and_normalizers_say_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"`reduction` must be one of .*did you mean 'mean'"):
        Importance(reduction="meen")
    with pytest.raises(ValueError, match=r"`normalizer` must be one of .*did you mean 'gaussian'"):
        Importance(normalizer="gausian")


def test_both_spellings_of_standardization_are_known() -> None:
    assert Importance(normalizer="standardisation").normalizer == "standardization"


class _Tokens(nn.Module):
    """A parameter of a module of its own: the module's output has as many rows, but they are no channels of it."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.rand(8, 6))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.tokens.mT).softmax(-1) @ self.tokens


def test_activation_refuses_what_it_cannot_read_instead_of_guessing() -> None:
    model = nn.Sequential(nn.Linear(3, 6), _Tokens(), nn.Linear(6, 2))
    with pytest.raises(ScoreError, match=r"no linear, embedding or convolution layer in group '1.tokens'"):
        gsprune.prune_step(model, 0.5, importance="activation", example_inputs=torch.rand(2, 8, 3))
