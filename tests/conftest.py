"""Settings for all tests: hypothesis' budget comes from the environment, and children see what is installed."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A child started by `python -c` or `-m` would put the current folder first, where a clone has the sources without the
# compiled core.
os.environ["PYTHONSAFEPATH"] = "1"

settings.register_profile(
    "gsprune",
    max_examples=int(os.environ.get("GSPRUNE_MAX_EXAMPLES", "25")),
    deadline=None,
    derandomize=os.environ.get("GSPRUNE_MAX_EXAMPLES") is None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("gsprune")
