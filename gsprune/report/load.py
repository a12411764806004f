"""Reads run folders for a report: finished, stopped or running ones. It never writes into them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gsprune.report.record import RunRecord
from gsprune.rl.training.metrics import read_metrics
from gsprune.rl.training.run_folder import holds_run, read_config

__all__ = ["find_runs", "load_run", "load_runs"]


_CONFIG = "config.json"
_SWEEP = "sweep.json"
# Options that do not distinguish methods: environment, seed, machine, evaluation and origin of the options.
_OPTIONS_OF_NO_METHOD = frozenset(
    {
        "env_id", "env_options", "seed", "device", "workers", "torch_threads", "env_threads", "eval_episodes",
        "eval_interval_episodes", "eval_points", "eval_num_envs", "checkpoint_minutes", "preset", "widths_of",
    }
)  # fmt: skip


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """The run folders at or below the given paths, at any depth, each once, sorted within each path.

    Raises:
        ValueError: a path does not exist or contains no run.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"there is no folder {str(path)!r}; give run folders, or a folder that contains some")
        inside = sorted(file.parent for file in path.rglob(_CONFIG) if holds_run(file.parent))
        if not inside:
            raise ValueError(
                f"there is no run in {str(path)!r}: a run folder has the config.json that gsprune train writes"
            )
        found.update(dict.fromkeys(inside))
    return list(found)


def load_run(folder: Path) -> RunRecord:
    """Read one run folder.

    Raises:
        ValueError: the folder is no run folder, or a file in it is damaged.
    """
    config = read_config(folder)
    for key in ("env_id", "seed", "algorithm"):
        if key not in config:
            raise ValueError(f"{str(folder / _CONFIG)!r} has no {key!r}: it is not a run of this program")
    try:
        rows = read_metrics(folder)
    except FileNotFoundError:
        rows = []
    except ValueError as error:
        raise ValueError(f"{str(folder / 'metrics.jsonl')!r} is damaged: {error}") from error
    summary = _read(folder / "summary.json")
    dense, pruned = summary.get("latency_ms") or (None, None)
    return RunRecord(
        folder,
        method=" ".join(_label_parts(config)),
        config=config,
        rows=rows,
        summary=summary,
        evaluation=_read(folder / "eval.json"),
        latency_ms=pruned,
        dense_latency_ms=dense,
    )


def load_runs(paths: Iterable[Path]) -> list[RunRecord]:
    """All runs at or below the paths, with a distinct label for every method.

    Runs of a sweep are labelled with the sweep's name of the method. The label of other runs consists of algorithm,
    network and pruning, as far as they differ between runs. If runs of one label still differ in options, these options
    are added.

    Raises:
        ValueError: as `find_runs` and `load_run`.
    """
    runs = [load_run(folder) for folder in find_runs(paths)]
    names: dict[Path, str] = {}
    # In the order of the runs: that of a set would differ from process to process.
    for folder in dict.fromkeys(parent for run in runs for parent in run.folder.resolve().parents):
        for trial in _read(folder / _SWEEP).get("trials", []):
            names[folder / trial["folder"]] = trial["method"]
    others = [run for run in runs if run.folder.resolve() not in names]
    labels = {run.folder: run.method for run in _distinguished(_shortened(others))}
    labelled = [replace(run, method=labels.get(run.folder) or names[run.folder.resolve()]) for run in runs]
    return _in_sweep_order(labelled, list(names.values()))


def _shortened(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs with labels that omit the parts that all runs share, except for the pruning."""
    parts = [_label_parts(run.config) for run in runs]
    kept = [i for i in range(3) if len({part[i] for part in parts}) > 1]
    return [
        replace(run, method=" ".join([*(part[i] for i in kept), part[3]]))
        for run, part in zip(runs, parts, strict=True)
    ]


def _distinguished(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs with labels that also name the options in which runs of one label differ."""
    labelled = []
    for run in runs:
        same_label = [other for other in runs if other.method == run.method]
        same_game = [other for other in same_label if other.game == run.game]
        extra = [*_differing(run, same_label, _options), *_differing(run, same_game, _environment_options)]
        labelled.append(replace(run, method=f"{run.method} ({', '.join(extra)})" if extra else run.method))
    return labelled


def _differing(
    run: RunRecord, others: Sequence[RunRecord], options_of: Callable[[RunRecord], Mapping[str, Any]]
) -> list[str]:
    """The options of a run, as "name=value", in which it and the other runs are not all equal."""
    values = {name: {json.dumps(options_of(other).get(name)) for other in others} for name in options_of(run)}
    return [f"{name}={value}" for name, value in options_of(run).items() if len(values[name]) > 1]


def _options(run: RunRecord) -> dict[str, Any]:
    return {name: value for name, value in run.config.items() if name not in _OPTIONS_OF_NO_METHOD}


def _environment_options(run: RunRecord) -> dict[str, str]:
    parts = str(run.config.get("env_options", "")).replace(" ", "").split(",")
    pairs = (part.partition("=") for part in parts if part)
    return {name: value for name, _, value in pairs if name != "asynchronous"}  # which changes no result


def _in_sweep_order(runs: list[RunRecord], methods: Sequence[str]) -> list[RunRecord]:
    """The runs in the order of the sweep's methods, which colours and rows follow."""
    rank = {method: i for i, method in reversed(list(enumerate(methods)))}
    return sorted(runs, key=lambda run: rank.get(run.method, len(rank)))


def _label_parts(config: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Algorithm, network, width and pruning: ("PPO", "impoola", "x2", "group 0.8")."""
    pruning = str(config.get("pruning", "none"))
    if pruning == "none":
        pruning = "small from scratch" if config.get("widths_of") else "dense"
    elif config.get("latency_budget_ms") is not None:
        pruning = f"{pruning} to {config['latency_budget_ms']:g} ms"
    elif pruning != "redo":
        pruning = f"{pruning} {config.get('sparsity', 0):g}"
    return config["algorithm"].upper(), str(config.get("encoder", "?")), f"x{config.get('width', 1):g}", pruning


def _read(file: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is no such file."""
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{str(file)!r} is damaged: {error}; delete it, and run the command that wrote it") from error
    return content if isinstance(content, dict) else {}
