"""Run folders made up for the report's tests, in the format of the trainers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WIDTHS = {
    "encoder.sequences.0.conv": 16,
    "encoder.sequences.0.block0.conv0": 16,
    "encoder.sequences.1.conv": 32,
    "encoder.sequences.1.block0.conv0": 32,
    "encoder.linear": 256,
}
RunWriter = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> RunWriter:
    """Writes a run whose return rises to `level`, and which prunes from 20 % to 80 % if `sparsity` is above 0.

    Each step has a KL of `effect` times the sparsity it adds, and ten times the value error.
    """

    def write(
        name: str = "run",
        *,
        level: float = 20.0,
        sparsity: float = 0.0,
        rows: int = 100,
        finished: bool = True,
        latency_ms: float = 2.0,
        seconds_per_row: float = 6.0,
        test_return: float | None = None,
        effect: float | None = None,
        **config: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        options = {"algorithm": "ppo", "env_id": "bigfish", "seed": 1, "encoder": "impoola", "width": 1}
        options |= {"pruning": "group" if sparsity else "none", "sparsity": sparsity or 0.8, **config}
        (folder / "config.json").write_text(json.dumps(options))
        rng = np.random.default_rng(int(options["seed"]))
        lines, before = [], 0.0
        for i in range(1, rows + 1):
            now = sparsity * (1 - (1 - min(1.0, max(0.0, (i / rows - 0.2) / 0.6))) ** 3)
            widths = {group: width - int(width * now + 1e-9) for group, width in WIDTHS.items()}
            kept = sum(widths.values()) / sum(WIDTHS.values())
            noisy = level * (1 - np.exp(-3 * i / rows)) + rng.normal(0, 0.5)
            row = {
                "step": i * 1_000,
                "charts/episodic_return": noisy,
                "charts/return_since_last": noisy,
                "charts/episodes_since_last": 3,
                "pruning/sparsity": now,
                "pruning/channel_sparsity": 1 - kept,
                "pruning/param_sparsity": 1 - kept**2,
                "pruning/params": 110_000 * kept**2,
                "pruning/macs": 30e6 * kept**2,
                **{f"width/{group}": width for group, width in widths.items()},
                "time/sps": 1_000 / seconds_per_row,
                "time/seconds": i * seconds_per_row,
            }
            if effect is not None and now > before:
                row |= {"pruning/kl": effect * (now - before), "pruning/value_error": 10 * effect * (now - before)}
            before = now
            if i % 10 == 0 and i < rows:
                row |= {"eval/train_return": noisy, "eval/test_return": 0.8 * noisy}
            lines.append(json.dumps(row))
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        if finished:
            final = 0.8 * level + rng.normal(0, 0.5) if test_return is None else test_return
            summary = {"train_return": level, "test_return": final, "latency_ms": [2.0, latency_ms]}
            (folder / "summary.json").write_text(json.dumps(summary))
        return folder

    return write
