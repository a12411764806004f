"""The number of threads that a training may use."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["default_workers", "usable_cores"]

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = Path("/sys/fs/cgroup/cpu")


def default_workers(torch_threads: int) -> int:
    """Number of workers that together use the usable cores, or the number of threads that OMP_NUM_THREADS allows."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(usable_cores(), int(limit)) if limit.isdecimal() else usable_cores()
    return max(1, threads // torch_threads)


def usable_cores() -> int:
    """Number of cores that this process may use: the affinity of the process and the CPU limit of its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _cgroup_limit()
    return cores if limit is None else max(1, min(cores, int(limit)))


def _cgroup_limit() -> float | None:
    """CPU time per wall time that the control group allows, in cores; None without a limit."""
    try:
        if _CGROUP_V2.is_file():
            quota, period = _CGROUP_V2.read_text().split()
        else:
            quota = (_CGROUP_V1 / "cpu.cfs_quota_us").read_text().strip()
            period = (_CGROUP_V1 / "cpu.cfs_period_us").read_text().strip()
    except (OSError, ValueError):
        return None
    return None if quota in {"max", "-1"} else int(quota) / int(period)
