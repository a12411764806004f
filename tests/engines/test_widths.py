from __future__ import annotations

import pytest
from torch import nn

import gsprune
from gsprune.engines import WIDTH_MULTIPLES, multiple_of


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 5))


def widths(model: nn.Module, sparsity: float, round_to: object) -> list[int]:
    report = gsprune.prune_step(model, sparsity, round_to=round_to)  # type: ignore[arg-type]
    return [group.after for group in report.groups]


@pytest.mark.parametrize("preset", WIDTH_MULTIPLES)
def test_a_preset_is_its_multiple(preset: str) -> None:
    multiple = WIDTH_MULTIPLES[preset]
    assert multiple_of(preset) == multiple
    assert widths(network(), 0.7, preset) == widths(network(), 0.7, multiple)


@pytest.mark.parametrize("preset", WIDTH_MULTIPLES)
@pytest.mark.parametrize("sparsity", [0.1, 0.33, 0.5, 0.8, 0.95])
def test_a_preset_never_removes_more_than_was_asked_for(preset: str, sparsity: float) -> None:
    multiple = WIDTH_MULTIPLES[preset]
    for exact, rounded, initial in zip(
        widths(network(), sparsity, 1), widths(network(), sparsity, preset), (64, 20), strict=True
    ):
        assert rounded >= exact
        assert rounded % multiple == 0 or rounded == initial


def test_numbers_and_mappings_pass_and_an_unknown_preset_names_the_known_ones() -> None:
    assert multiple_of(4) == 4
    assert multiple_of({"*": 8}) == {"*": 8}
    model = network()
    with pytest.raises(ValueError, match=r"`round_to` must be .*'onnxruntime' \(8\).*got 'ort'"):
        gsprune.prune_step(model, 0.5, round_to="ort")
    assert model[0].out_features == 64
