"""Small copies of the finished runs of a sweep, from which `gsprune report` makes the same tables and pictures.

    python scripts/thin_runs.py runs/minatar docs/results/minatar
    gsprune report docs/results/minatar --out report

A copy has the options, the summary and `--rows` rows of metrics, evenly spread and with the last; losses are left out.
A row stands for those since the one before: it has all their episodes, the mean entropy of their policies, and the
largest effect of their pruning steps. So the curves have fewer points, and dips are blurred; all else in the report is
the same. A copy that exists stays as it is, so that the script can run while the sweep goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gsprune.files import write_atomically
from gsprune.rl.training.metrics import read_metrics

Row = Mapping[str, Any]

_LEFT_OUT = ("losses/", "charts/episodic_length")
_RETURN, _EPISODES = "charts/return_since_last", "charts/episodes_since_last"
_ENTROPY = "losses/entropy"
_LARGEST = ("pruning/kl", "pruning/value_error", "pruning/action_change")


def thinned(rows: Sequence[Row], number: int) -> list[dict[str, Any]]:
    """`number` of the rows, evenly spread and with the last, or all where there are fewer."""
    ends = sorted({max(1, round(len(rows) * part / number)) for part in range(1, number + 1)})
    begins = [0, *ends[:-1]]
    return [_joined(rows[begin:end]) for begin, end in zip(begins, ends, strict=True)]


def _joined(rows: Sequence[Row]) -> dict[str, Any]:
    row = {name: _rounded(value) for name, value in rows[-1].items() if not name.startswith(_LEFT_OUT)}
    episodes = sum(row[_EPISODES] for row in rows)
    row[_EPISODES] = episodes
    if episodes:
        row[_RETURN] = _rounded(sum(row[_RETURN] * row[_EPISODES] for row in rows if row[_EPISODES]) / episodes)
    if _ENTROPY in rows[-1]:
        row[_ENTROPY] = _rounded(sum(each[_ENTROPY] for each in rows) / len(rows))
    for name in _LARGEST:
        values = [row[name] for row in rows if row.get(name) is not None]
        if values:
            row[name] = _rounded(max(values))
    return row


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _copy(file: Path, folder: Path, sweep: Path) -> None:
    """Copy a JSON file, with paths relative to the sweep: its place on this machine means nothing elsewhere."""
    text = file.read_text().replace(f"{sweep.resolve()}/", "")
    write_atomically(folder / file.name, text.encode())


def main(argv: Sequence[str] | None = None) -> None:
    """Copy what has finished and is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="folder of a sweep")
    parser.add_argument("out", type=Path, help="folder of the copies")
    parser.add_argument("--rows", type=int, default=50, help="rows of metrics that a run keeps")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    _copy(args.sweep / "sweep.json", args.out, args.sweep)
    for summary in sorted(args.sweep.rglob("summary.json")):
        target = args.out / summary.parent.relative_to(args.sweep)
        if (target / "summary.json").exists():
            continue
        target.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row) for row in thinned(read_metrics(summary.parent), args.rows)]
        write_atomically(target / "metrics.jsonl", ("\n".join(lines) + "\n").encode())
        _copy(summary.parent / "config.json", target, args.sweep)
        _copy(summary, target, args.sweep)
        sys.stdout.write(f"{target}\n")


if __name__ == "__main__":
    main()
