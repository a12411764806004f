"""A criterion from outside the package: by object, by registered name, from data, and the page that explains it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gsprune
from gsprune.arrays import Float64Array
from gsprune.importance import CRITERIA, Criterion, ScoreSource, register_criterion

PAGE = Path(__file__).parents[2] / "docs/extending/criterion.md"


class Descending(Criterion):
    """Scores units directly: the last unit is the most important one."""

    def statistics(self, source: ScoreSource) -> dict[str, Float64Array]:
        return {group.name: np.arange(float(group.num_units))[np.newaxis] for group in source.groups}


class OutputMean(Criterion):
    """Reads data: the mean output of the first layer."""

    reads_data = True

    def statistics(self, source: ScoreSource) -> dict[str, Float64Array]:
        assert source.model is not None
        seen: list[torch.Tensor] = []
        handle = source.model.get_submodule("0").register_forward_hook(lambda module, args, output: seen.append(output))
        try:
            source.run_model("output_mean")
        finally:
            handle.remove()
        (group,) = source.groups
        return {group.name: seen[0].double().mean(0, keepdim=True).numpy()}


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    before = dict(CRITERIA)
    yield
    CRITERIA.clear()
    CRITERIA.update(before)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))


def removed(importance: object) -> list[int]:
    report = gsprune.prune_step(network(), 0.5, importance=importance, example_inputs=torch.ones(3, 5))  # type: ignore[arg-type]
    return report.removed["0.weight"][0].tolist()


def test_an_object_and_a_registered_name_choose_the_same() -> None:
    register_criterion("descending")(Descending)
    assert removed(Descending()) == removed("descending") == [0, 1, 2, 3]
    assert removed(gsprune.Importance("descending", reduction="prod", normalizer="max")) == [0, 1, 2, 3]


def test_a_criterion_reads_data_through_the_source() -> None:
    net = network()
    expected = net[0](torch.ones(1, 5))[0].argsort()[:4].sort().values.tolist()
    assert removed(OutputMean()) == expected


def test_a_name_is_taken_once_and_stands_for_a_criterion() -> None:
    with pytest.raises(ValueError, match=r"`name` 'l1' is taken by gsprune\.importance\.magnitude\.L1"):
        register_criterion("l1")
    with pytest.raises(TypeError, match="`name` must be a string"):
        register_criterion(Descending)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must decorate a subclass of Criterion"):
        register_criterion("other")(nn.Linear)  # type: ignore[type-var]
    assert "other" not in CRITERIA


def test_the_example_of_the_page_runs() -> None:
    block = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    names: dict[str, object] = {}
    exec(block, names)
    assert isinstance(names["model"], nn.Sequential)
    assert names["model"][0].out_features == 16


def test_a_criterion_that_leaves_out_a_group_is_named_with_the_group() -> None:
    class Forgetful(Criterion):
        def statistics(self, source: ScoreSource) -> dict[str, Float64Array]:
            return {}

    with pytest.raises(gsprune.errors.ScoreError, match=r"Forgetful.*omitted group '0'"):
        removed(Forgetful())
