"""The table of sensitivities says what masking does, and does nothing itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import gsprune
from gsprune.pruning.sensitivity import sensitivity

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))


def test_rows_agree_with_masking_by_hand() -> None:
    model = net()
    table = sensitivity(model, X, ratios=(0.5, 0.0))
    assert [(row.group, row.ratio) for row in table.rows] == [("0", 0.0), ("0", 0.5), ("2", 0.0), ("2", 0.5)]
    for row in table.rows:
        layer, following = (model[0], model[2]) if row.group == "0" else (model[2], model[4])
        scores = (layer.weight.abs().sum(1) + following.weight.abs().sum(0)).detach() / 2
        weakest = scores.argsort()[: int(row.width * row.ratio)].sort().values
        assert row.removed.tolist() == weakest.tolist()
        assert row.score_lost == pytest.approx(float(scores[weakest].sum() / scores.sum()))
        masked = copy.deepcopy(model)
        with torch.no_grad():
            masked[int(row.group)].weight[weakest] = 0
            masked[int(row.group)].bias[weakest] = 0
            expected = float((masked(X) - model(X)).norm() / model(X).norm())
        assert row.output_change == pytest.approx(expected, rel=1e-5)


def test_the_model_is_as_before_and_its_parameters_the_same_objects() -> None:
    model = net().train()
    before = copy.deepcopy(model.state_dict())
    parameters = list(model.parameters())
    sensitivity(model, X, ratios=(0.5,))
    assert model.training
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert set(model.__dict__) == set(net().__dict__)


def test_a_pruned_model_is_measured_by_its_present_width_with_the_example_it_knows() -> None:
    model = net()
    gsprune.prune_step(model, 0.5, example_inputs=X)
    rows = sensitivity(model, ratios=(0.5,)).rows
    assert [(row.width, len(row.removed)) for row in rows] == [(4, 2), (2, 1)]


def test_ignored_groups_are_left_out() -> None:
    assert {row.group for row in sensitivity(net(), X, ignore=("2",)).rows} == {"0"}


def test_the_table_has_a_line_per_group() -> None:
    lines = str(sensitivity(net(), X, ratios=(0.25, 0.5))).splitlines()
    assert lines[1].split() == ["group", "width", "25%", "50%"]
    assert [line.split()[:2] for line in lines[2:]] == [["0", "8"], ["2", "4"]]


@pytest.mark.parametrize("ratio", [1.0, -0.1])
def test_a_ratio_outside_its_range_is_an_error(ratio: float) -> None:
    with pytest.raises(ValueError, match=r"`ratios\[0\]` must be in \[0, 1\)"):
        sensitivity(net(), X, ratios=(ratio,))


def test_with_compensation_rows_agree_with_compensated_steps() -> None:
    model, frames = net(), torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
    before = copy.deepcopy(model.state_dict())
    rows = sensitivity(model, X, ratios=(0.5,), compensate="linear", calibration=frames).rows
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [row.group for row in rows] == ["0", "2"]
    for row in rows:
        small = copy.deepcopy(model)
        gsprune.prune_step(small, {row.group: 0.5}, compensate="linear", calibration=frames)
        with torch.no_grad():
            expected = float((small(frames) - model(frames)).norm() / model(frames).norm())
        assert row.output_change == pytest.approx(expected, rel=1e-5)


def test_criteria_that_read_calibration_data_get_it() -> None:
    frames = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
    assert sensitivity(net(), X, ratios=(0.5,), importance="reconstruction", calibration=frames).rows
    with pytest.raises(ValueError, match="needs `calibration`, and got none"):
        sensitivity(net(), X, importance="reconstruction")
