"""An engine from outside the package is used like the built-in ones."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gsprune
from gsprune.cli import main
from gsprune.engines import Engine, Forward, PortableCall, register_engine
from gsprune.engines.registry import ENGINES, load


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which goes on only while something sleeps."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


class Sleeper(Engine):
    """Sleeps for a time per parameter."""

    package = "gsprune"

    def __init__(self, seconds_per_parameter: float) -> None:
        self.seconds_per_parameter = seconds_per_parameter

    def load(self, call: PortableCall, threads: int) -> Forward:
        parameters = sum(parameter.numel() for parameter in call.module.parameters())
        return lambda: time.sleep(self.seconds_per_parameter * parameters)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GSPRUNE_CACHE", str(tmp_path))


@pytest.mark.usefixtures("clock")
def test_a_network_is_pruned_to_a_budget_in_an_engine_of_ones_own() -> None:
    register_engine("sleeper", Sleeper(1e-6))
    model = nn.Sequential(nn.Linear(4, 400), nn.ReLU(), nn.Linear(400, 4))  # 3,604 parameters: 3.6 ms
    budget = gsprune.LatencyBudget(1.8, engine="sleeper")
    gsprune.prune_step(model, budget, target="latency", example_inputs=torch.ones(2, 4))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert 1e-3 * parameters == pytest.approx(1.8, rel=0.05)


def test_the_command_line_times_an_engine_of_ones_own(tmp_path: Path) -> None:
    pytest.importorskip("tyro")
    pytest.importorskip("matplotlib")
    register_engine("sleeper", Sleeper(1e-9))
    options = ["--encoder", "nature", "--batches", "1", "--threads", "1", "--seconds", "0.05"]
    assert main(["latency", *options, "--engines", "sleeper", "--out", str(tmp_path / "out")]) == 0
    rows = json.loads((tmp_path / "out" / "latency.json").read_text())
    assert {row["engine"] for row in rows} == {"sleeper"}


def test_an_unknown_engine_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(ValueError, match=r"`engine` must be one of 'eager', .*got 'eagr'; did you mean 'eager'\?"):
        load("eagr", [])


def test_networks_are_unloaded_before_others_are_loaded() -> None:
    events: list[str] = []

    class Noting(Engine):
        package = "gsprune"

        def load(self, call: PortableCall, threads: int) -> Forward:
            events.append(f"load with {torch.get_num_threads()}")
            return lambda: None

        def unload(self) -> None:
            events.append("unload")

    call: Any = None
    register_engine("noting", Noting())
    load("noting", [call, call], threads=3)
    assert events == ["unload", "load with 3", "load with 3"]


class Unloadable(Engine):
    package = "torch"


class Unpackaged(Engine):
    def load(self, call: PortableCall, threads: int) -> Forward:
        raise NotImplementedError


class Set(Sleeper):
    settings = {"kinds": {1, 2}}  # noqa: RUF012


@pytest.mark.parametrize(
    ("name", "engine", "message"),
    [
        (3, Sleeper(1), "`name` must be a string, got 3"),
        ("own", Sleeper, r"must be an object, got the class Sleeper; call it: Sleeper\(\)"),
        ("own", object(), r"must have a method `load\(call, threads\)`, got <object"),
        ("own", Unloadable(), r"must have a method `load\(call, threads\)`"),
        ("own", Unpackaged(), "must have an attribute `package`"),
        ("own", Set(1), r"`settings` of `engine` must be a dictionary of JSON values, got \{'kinds': \{1, 2\}\}"),
    ],
)
def test_what_is_no_engine_is_refused_when_it_is_registered(name: Any, engine: Any, message: str) -> None:
    before = dict(ENGINES)
    with pytest.raises(TypeError, match=message):
        register_engine(name, engine)
    assert before == ENGINES


def test_an_engine_that_returns_no_function_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = Sleeper(1)
    monkeypatch.setattr(sleeper, "load", lambda call, threads: None)
    monkeypatch.setitem(ENGINES, "sleeper", sleeper)
    with pytest.raises(TypeError, match=r"`load` of engine 'sleeper' must return a function .*, got NoneType"):
        gsprune.prune_step(
            nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)), gsprune.LatencyBudget(1, engine="sleeper"),
            target="latency", example_inputs=torch.ones(2, 4),
        )  # fmt: skip
