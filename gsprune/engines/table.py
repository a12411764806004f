"""Stored latency measurements of this machine: widths of a network -> milliseconds.

A table is a JSON file below ``$GSPRUNE_CACHE`` (else ``$XDG_CACHE_HOME/gsprune``, else ``~/.cache/gsprune``). Its name
is a hash of the machine, the engine with its settings and version, threads, batch and the dense network. It is safe to
delete.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gsprune.engines.budget import LatencyBudget
from gsprune.engines.engine import package_version
from gsprune.engines.registry import get_engine
from gsprune.files import write_atomically
from gsprune.tracing.graph import Graph

__all__ = ["WidthTable", "cache_folder", "table_key"]


class WidthTable:
    """The table of one network in one engine on one machine. Every change is written to disk at once."""

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        """Read the table, or start an empty one; JSON values identify network, engine and machine."""
        text = json.dumps(key, sort_keys=True)
        self.path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
        self._key = dict(key)
        content = self._read()
        self._times: dict[str, float] = content.get("milliseconds", {})
        self._ratios: dict[str, float] = content.get("ratios", {})

    def milliseconds(self, widths: Mapping[str, int]) -> float | None:
        """The time of a network with these widths, if it was measured."""
        return self._times.get(_joined(widths))

    def add(self, widths: Mapping[str, int], milliseconds: float) -> None:
        """Store a measurement."""
        self._times[_joined(widths)] = milliseconds
        self._write()

    def ratio(self, request: str) -> float | None:
        """The stored result of a search, or None. A resumed training reads it and so prunes as before."""
        return self._ratios.get(request)

    def add_ratio(self, request: str, ratio: float) -> None:
        """Store the result of a search."""
        self._ratios[request] = ratio
        self._write()

    def _read(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self.path.read_text())
        except (OSError, ValueError):  # missing or damaged: measure again
            return {}
        return content

    def _write(self) -> None:
        content = {"key": self._key, "milliseconds": self._times, "ratios": self._ratios}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(content, indent=1).encode())
        except OSError as error:
            raise ValueError(
                f"the table of latencies cannot be written to {str(self.path)!r} ({error.strerror}); set GSPRUNE_CACHE"
                " to a writable folder"
            ) from error


def cache_folder() -> Path:
    """The folder of latency tables."""
    chosen = os.environ.get("GSPRUNE_CACHE")
    if chosen:
        return Path(chosen) / "latency"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gsprune" / "latency"


def table_key(graph: Graph, dense_shapes: Mapping[str, tuple[int, ...]], budget: LatencyBudget) -> dict[str, Any]:
    """The values that identify the table of a network, an engine and this machine.

    Args:
        graph: the network at its present widths.
        dense_shapes: shapes of its tensors before pruning.
        budget: names engine, threads and batch; its milliseconds are ignored.
    """
    engine = get_engine(budget.engine)
    return {
        "machine": _machine(),
        "engine": budget.engine,
        "settings": dict(engine.settings),
        "version": package_version(engine.package),
        "threads": budget.threads,
        "batch": budget.batch,
        "inputs": [list(shape[1:] if budget.batch else shape) for shape in graph.example_shapes],
        "dense": {name: list(shape) for name, shape in dense_shapes.items()},
        "positions": [[weight, uses] for weight, uses in graph.weight_uses.items()],
    }


def _joined(widths: Mapping[str, int]) -> str:
    return " ".join(f"{name}={width}" for name, width in widths.items())


def _machine() -> str:
    """The properties of the machine that affect timings: its name, its processor and the number of usable cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.node()}, {_processor()}, {cores} cores"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return named[0] if named else platform.machine()
