"""Settings for all tests: hypothesis' budget, one thread, and children that see what is installed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

# A child started by `python -c` or `-m` would put the current folder first, where a clone has the sources without the
# compiled core.
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


@pytest.fixture(autouse=True)
def _restored_threads() -> Iterator[None]:
    """A trainer sets torch's number of threads, which holds for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def one_thread() -> None:
    """Equal sums whatever the machine."""
    torch.set_num_threads(1)
