"""Settings for all tests: a process for each core, one thread in each, hypothesis' budget."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from gsprune.engines import ENGINES
from gsprune.importance.criterion import CRITERIA
from gsprune.rewrite.optimizers.registry import _HANDLERS as STATE_HANDLERS
from gsprune.rl.algorithms.registry import _registered as ALGORITHMS
from gsprune.rl.envs.registry import _registered as PROVIDERS
from gsprune.tracing.rules.registry import RULES

# Children started by `python -c` or `-m` import what is installed, as the tests do, not what the current folder holds.
os.environ["PYTHONSAFEPATH"] = "1"

# Small networks gain nothing from several threads, and beside a busy process OpenMP's threads wait for each other by
# spinning: a test file took 8 times as long. Children read the variable.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

settings.register_profile(
    "gsprune",
    max_examples=int(os.environ.get("GSPRUNE_MAX_EXAMPLES", "25")),
    deadline=None,
    derandomize=os.environ.get("GSPRUNE_MAX_EXAMPLES") is None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("gsprune")

# More processes than this gain little: the longest tests take 10 s each.
_MOST_PROCESSES = 4


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share the tests of whole folders among processes, one for each core; named files and `-n 0` run in this one."""
    option = config.option
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    if option.numprocesses is not None or option.tx or option.dist != "no" or option.usepdb:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores > 1 and all(os.path.isdir(argument) for argument in config.args):
        option.numprocesses = min(cores, _MOST_PROCESSES)
        option.dist = "worksteal"


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """No test takes the power away, and a run writes hundreds of files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def _restored_threads() -> Iterator[None]:
    """A trainer sets torch's number of threads, which holds for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _restored_registries() -> Iterator[None]:
    """Registries are restored after each test. Other tests register the same names, or list all names."""
    registries: tuple[Any, ...] = (ALGORITHMS, CRITERIA, ENGINES, PROVIDERS, RULES, STATE_HANDLERS)
    before = [copy.copy(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.extend(entries) if isinstance(registry, list) else registry.update(entries)


@pytest.fixture
def one_thread() -> None:
    """Equal sums whatever the machine."""
    torch.set_num_threads(1)
