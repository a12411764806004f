"""Whatever is passed to a public function: it works, or an error names the argument, and nothing has changed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from snapshots import snapshot
from torch import Tensor, nn

import gsprune
from gsprune import schedules
from gsprune.importance import Activation, Importance, Random

X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
MODEL = {"model", "example_inputs"}
NAN = float("nan")
INF = float("inf")

ODD: list[Any] = [
    *[None, True, False, 0, 1, -1, 3, 10**30, 0.0, -0.5, 0.5, 1.0, 2.5, NAN, INF, -INF, 1 + 2j],
    *["", "0", "nothing", "l1", "*", "[", b"0", [], (), {}, set(), [0], [None], ["0"], [NAN], (1, 2), {"0": 0.5}],
    *[{"nothing": 0.5}, {"0": NAN}, {"0": "half"}, {0: 0.5}, {"0": 2}, {"0": None}, {1: 1}],
    *[object(), object, nn.Linear, nn.Linear(2, 2), torch.optim.SGD(nn.Linear(2, 2).parameters()), Path("x"), len],
    *[torch.zeros(0), torch.zeros(2, 4), torch.tensor(NAN), torch.zeros(2, 5), torch.zeros(2, 4, dtype=torch.long)],
    *[np.float32(0.5), np.int64(2), np.zeros(3), np.array(0.5), np.nan, iter([]), range(3)],
    *[lambda *_: None, lambda matrix: matrix, lambda model, *x: model(*x), lambda matrix: matrix.sum(1) * NAN],
    *[gsprune.LatencyBudget(1.0), schedules.Linear(0.5), Importance("l2"), Random(), slice(None), NotImplemented],
]
odd = st.sampled_from(range(len(ODD))).map(ODD.__getitem__)


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def refused(call: Callable[[], Any], names: set[str]) -> bool:
    """Whether `call` raised; if so, it must be one of the documented errors, whose text names one of the arguments."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", gsprune.PruneWarning)
            call()
    except (gsprune.GspruneError, ValueError, TypeError) as error:
        refusal = str(error)
    else:
        return False
    assert any(name in refusal for name in names), refusal
    return True


STEP_OPTIONS = [
    *["sparsity", "optimizer", "followers", "example_inputs", "forward", "importance", "scope", "target", "ignore"],
    *["round_to", "min_channels", "rescale", "backend", "dry_run", "process_group"],
]


@given(st.dictionaries(st.sampled_from(STEP_OPTIONS), odd, min_size=1, max_size=3))
def test_prune_step_works_or_refuses_with_the_argument_s_name_and_changes_nothing(bad: dict[str, Any]) -> None:
    net = small_net()
    optimizer = torch.optim.Adam(net.parameters())
    net(X).square().mean().backward()
    optimizer.step()
    before = snapshot(net, optimizer)
    arguments = {"sparsity": 0.5, "optimizer": optimizer, "example_inputs": X, **bad}
    if refused(lambda: gsprune.prune_step(net, **arguments), set(bad)):
        assert snapshot(net, optimizer) == before
    else:
        assert net(X).shape == (2, 3)


@given(odd)
def test_other_calls_on_a_model_do_as_well(value: Any) -> None:
    net = small_net()
    before = snapshot(net)
    refused(lambda: gsprune.trace(net, value), {"example_inputs"})
    refused(lambda: gsprune.trace(value, X), MODEL)
    refused(lambda: gsprune.prune_step(value, 0.5, example_inputs=X), MODEL)
    refused(lambda: gsprune.cost(value, X), MODEL)
    refused(lambda: gsprune.cost(net, value), {"example_inputs"})
    refused(lambda: gsprune.latency(value, X, calls=1, warmup=0), MODEL)
    refused(lambda: gsprune.latency(net, value, calls=1, warmup=0), {"example_inputs"})
    refused(lambda: gsprune.latency(net, X, calls=value, warmup=0, max_seconds=0.0), {"calls"})
    refused(lambda: gsprune.latency(net, X, calls=1, warmup=0, max_seconds=value), {"max_seconds"})
    refused(lambda: gsprune.sensitivity(net, X, ratios=value), {"ratios"})
    refused(lambda: gsprune.sensitivity(net, X, ignore=value), {"ignore"})
    refused(lambda: gsprune.sensitivity(value, X), MODEL)
    assert snapshot(net) == before


@given(odd, odd)
def test_a_pruner_and_its_state_do_as_well(schedule: Any, other: Any) -> None:
    net = small_net()
    before = snapshot(net)
    refused(
        lambda: gsprune.Pruner(other, schedules.Linear(0.5), example_inputs=X).step(0.5), {"model", "example_inputs"}
    )
    refused(lambda: gsprune.Pruner(net, schedules.Linear(0.5), importance=other), {"importance"})
    pruner = gsprune.Pruner(net, schedules.Linear(0.5), example_inputs=X)
    refused(lambda: pruner.load_state_dict(other), {"state"})
    refused(lambda: pruner.load_state_dict({"progress": other, "importance": {}}), {"state", "progress"})
    refused(lambda: pruner.load_state_dict({"progress": 0.5, "importance": other}), {"state"})
    assert snapshot(net) == before
    if not refused(lambda: pruner.step(other), {"progress"}):
        assert net(X).shape == (2, 3)
    if not callable(schedule) or isinstance(schedule, schedules.Schedule):  # a user's function may raise anything
        refused(lambda: gsprune.Pruner(net, schedule, example_inputs=X).step(0.9), {"schedule", "sparsity"})


SCHEDULES: list[Callable[..., Any]] = [
    *[schedules.Cubic, schedules.Linear, schedules.Cosine, schedules.Exponential, schedules.OneShot],
    schedules.Polynomial,
]


@given(
    st.sampled_from(SCHEDULES), st.dictionaries(st.sampled_from(["final", "begin", "end", "events", "power"]), odd), odd
)
def test_schedules_refuse_what_they_cannot_be_made_of(kind: Callable[..., Any], bad: dict[str, Any], u: Any) -> None:
    if kind is not schedules.Polynomial:
        bad.pop("power", None)
    refused(lambda: kind(**{"final": 0.5, **bad}), {*bad, "begin", "end"})
    refused(lambda: kind(0.5)(u), {"progress"})


@given(odd, odd, odd)
def test_importances_refuse_what_they_cannot_be_made_of(criterion: Any, reduction: Any, normalizer: Any) -> None:
    refused(lambda: Importance(criterion, reduction, normalizer), {"importance", "reduction", "normalizer"})
    refused(lambda: Random(criterion), {"seed"})
    refused(lambda: Activation(batches=criterion, forward=reduction), {"batches", "forward"})
    refused(lambda: gsprune.LatencyBudget(criterion, threads=reduction), {"milliseconds", "threads"})
    refused(lambda: gsprune.LatencyBudget(1.0, criterion, batch=reduction), {"engine", "batch"})


@given(model=odd, other=odd, value=odd)
def test_files_refuse_what_they_cannot_hold(
    model: Any, other: Any, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("files") / "net.safetensors"
    net = small_net()
    refused(lambda: gsprune.save(model, path), {"model"})
    refused(lambda: gsprune.save(net, path, other), {"optimizer"})
    refused(lambda: gsprune.save(net, path, value=value), {"value"})
    gsprune.save(net, path)
    before = snapshot(net)
    refused(lambda: gsprune.load(path, into=model), {"into", "architecture"})
    if refused(lambda: gsprune.load(path, into=net, optimizer=other), {"optimizer"}):
        assert snapshot(net) == before
    if not isinstance(value, int | str | bytes | Path):
        refused(lambda: gsprune.save(net, value), {"path"})
        refused(lambda: gsprune.load(value, into=net), {"path"})


@given(odd, odd, odd)
def test_a_report_slices_or_refuses(name: Any, tensor: Any, axis: Any) -> None:
    report = gsprune.prune_step(small_net(), 0.5, example_inputs=X)
    refused(lambda: report.slice(name, X), {"name", "tensor"})
    refused(lambda: report.slice("0.weight", tensor), {"tensor"})
    refused(lambda: report.slice("0", tensor, axis), {"tensor", "axis"})
    sliced = report.slice("0", torch.zeros(2, 8))
    assert isinstance(sliced, Tensor)
    assert sliced.shape == (2, 4)
