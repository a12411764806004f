"""Settings for all tests: hypothesis' budget comes from the environment."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "gsprune",
    max_examples=int(os.environ.get("GSPRUNE_MAX_EXAMPLES", "25")),
    deadline=None,
    derandomize=os.environ.get("GSPRUNE_MAX_EXAMPLES") is None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("gsprune")
