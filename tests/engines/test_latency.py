"""Costs against counts by hand; latencies by what they leave behind, never by the clock."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gsprune
from gsprune.engines import Latency
from gsprune.engines.latency import latencies, latency
from gsprune.engines.portable_call import portable_call
from gsprune.networks import ActorCritic, build_encoder, example_frames

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 5)
    )


def test_cost_counts_weights_times_positions() -> None:
    cost = gsprune.cost(net(), X)
    assert [(layer.name, layer.params, layer.macs) for layer in cost.layers] == [
        ("0", 6 * 27 + 6, 36 * 6 * 27),
        ("1", 12, 0),
        ("3", 4 * 54 + 4, 16 * 4 * 54),
        ("5", 5 * 64 + 5, 5 * 64),
    ]
    assert (cost.params, cost.macs) == (168 + 12 + 220 + 325, 5832 + 3456 + 320)


def test_macs_are_per_example_of_the_batch() -> None:
    assert gsprune.cost(net(), X[:1]).macs == gsprune.cost(net(), X).macs


@pytest.mark.parametrize(("encoder", "tau", "millions"), [("impala", 2, 117.84), ("impoola", 3, 260.14)])
def test_macs_of_the_paper_s_networks(encoder: Any, tau: int, millions: float) -> None:
    cost = gsprune.cost(ActorCritic(build_encoder(encoder, tau), 15), example_frames(1))
    assert round(cost.macs / 1e6, 2) == millions


def test_tied_weights_count_once_as_parameters_and_twice_as_work() -> None:
    tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
    tied[2].weight = tied[0].weight
    cost = gsprune.cost(tied, torch.randn(1, 4))
    assert (cost.params, cost.macs) == (16, 32)


def test_a_cost_prints_as_a_table_with_a_total() -> None:
    lines = str(gsprune.cost(net(), X)).splitlines()
    assert lines[0].split() == ["layer", "weight", "params", "MACs"]
    assert lines[-1].split() == ["total", "725", "9,608"]


def test_cost_and_latency_leave_the_model_as_it_was() -> None:
    model = net()
    model[1].eval()
    before = copy.deepcopy(model.state_dict())
    gsprune.cost(model, X)
    latency(model, X, calls=2, warmup=1)
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Recorder(nn.Module):
    """Notes who was called with how many examples, and whether in training."""

    calls: list[tuple[str, int, bool, bool]]

    def __init__(self, name: str, calls: list[tuple[str, int, bool, bool]]) -> None:
        super().__init__()
        self.name = name
        self.calls = calls

    def forward(self, x: Tensor, *, offset: Tensor | None = None) -> Tensor:
        self.calls.append((self.name, len(x), self.training, torch.is_grad_enabled()))
        return x if offset is None else x + offset


def test_models_take_turns_in_eval_mode_without_gradients() -> None:
    calls: list[tuple[str, int, bool, bool]] = []
    models = [Recorder("a", calls), Recorder("b", calls)]
    results = latencies(models, X, batch=5, calls=4, warmup=1)
    assert "".join(name for name, *_ in calls) == "ab" + "ab" + "ab" + "aaaaabbbbb"
    assert {call[1:] for call in calls} == {(5, False, False)}
    assert [len(result.seconds) for result in results] == [4, 4]
    assert all(result.batch == 5 and result.median > 0 for result in results)


def test_inputs_may_be_a_tuple_or_a_mapping_and_the_call_one_s_own() -> None:
    calls: list[tuple[str, int, bool, bool]] = []
    model = Recorder("a", calls)
    latency(model, {"x": X, "offset": torch.zeros(2, 1, 1, 1)}, batch=3, calls=1, warmup=0)
    latency(model, (X,), calls=1, warmup=0)
    latency(model, (X, 2), forward=lambda m, x, times: m(x.repeat(times, 1, 1, 1)), calls=1, warmup=0)
    assert [size for _, size, *_ in calls] == [3, 3, 2, 2, 4, 4]


def test_a_time_limit_ends_it_after_ten_calls() -> None:
    assert len(latency(net(), X, calls=100, max_seconds=0.0).seconds) == 10


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is (deprecated|not supported)")
def test_torchscript_is_timed_but_not_exported() -> None:
    script = torch.jit.script(net().eval())
    assert len(latency(script, X, calls=2, warmup=0).seconds) == 2
    with pytest.raises(TypeError, match=r"`model` is a scripted .* pass the Python module"):
        portable_call(script, X)


def test_median_and_p99_are_those_of_the_calls() -> None:
    result = Latency(tuple(float(i) for i in range(1, 102)), 1, "cpu", 2)
    assert (result.median, result.p99) == (51.0, 100.0)
    assert Latency((3.0, 1.0), 1, "cpu", 1).p99 == 3.0


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        (1, {"calls": 0}, "`calls` must be at least 1, got 0"),
        (1, {"warmup": -1}, "`warmup` must be at least 0"),
        (1, {"batch": 0}, "`batch` must be at least 1"),
        (0, {}, "`models` must hold at least one network, got none"),
    ],
)
def test_a_bad_argument_is_named_with_its_value(models: int, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        latencies([net() for _ in range(models)], X, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"models": nn.Linear(2, 2)}, TypeError, "`models` must be a list of networks, got Linear.*`latency`"),
        ({"models": ["net"]}, TypeError, "`model` must be a torch.nn.Module, got str"),
        ({"example_inputs": torch.ones(2, 5)}, ValueError, r"`example_inputs` must be.*float32 \(2, 5\).*pass inputs"),
        ({"example_inputs": torch.ones(2, 4, dtype=torch.uint8)}, ValueError, r"`example_inputs`.*uint8 \(2, 4\)"),
        ({"example_inputs": {"frames": torch.ones(2, 4)}}, ValueError, "`example_inputs`.*keyword argument 'frames'"),
        ({"example_inputs": torch.ones(0, 4), "batch": 2}, ValueError, "`example_inputs` must hold at least one"),
        ({"example_inputs": np.ones((2, 4))}, TypeError, "`example_inputs` must be a tensor.*got ndarray"),
        ({"forward": "call"}, TypeError, "`forward` must be callable.*got 'call'"),
        ({"calls": 2.5}, TypeError, "`calls` must be a whole number, got 2.5"),
        ({"batch": True}, TypeError, "`batch` must be a whole number, got True"),
        ({"max_seconds": "1"}, TypeError, "`max_seconds` must be a number, got '1'"),
        ({"max_seconds": float("nan")}, ValueError, "`max_seconds` must be at least 0, got nan"),
    ],
)
def test_what_cannot_be_timed_is_refused_by_the_argument_s_name(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments = {"models": [nn.Linear(4, 2)], "example_inputs": torch.ones(2, 4), "calls": 1, "warmup": 0, **options}
    with pytest.raises(error, match=message):
        latencies(**arguments)
