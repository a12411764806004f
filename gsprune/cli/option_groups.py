"""The groups of options in the help of a training command."""

from __future__ import annotations

import dataclasses
from typing import Any

from gsprune.cli.run_options import RunOptions

__all__ = ["GROUPS", "groups_of"]

GROUPS: dict[str, tuple[str, ...]] = {
    "environment": ("env_id", "env_options", "distribution_mode", "seed", "total_timesteps", "num_envs"),
    "network": ("encoder", "num_features", "network", "width", "widths_of"),
    "pruning": (
        *("pruning", "sparsity", "prune_begin", "prune_end", "prune_interval", "importance", "scope", "target"),
        *("latency_budget_ms", "latency_engine", "latency_batch", "round_to", "min_channels", "rescale"),
        *("compensate", "calibration_frames", "backend"),
    ),
    "algorithm": ("learning_rate", "adam_eps"),
    "evaluation": ("eval_episodes", "eval_interval_episodes", "eval_points", "eval_num_envs"),
    "machine": (
        *("device", "workers", "torch_threads", "env_threads", "channels_last", "amp", "compile"),
        *("checkpoint_minutes", "rank_timeout_minutes", "microbatch_size"),
    ),
}
"""Title of a group -> its options. Options of an algorithm's own configuration need no entry."""


def groups_of(args_type: type[Any]) -> dict[str, list[str]]:
    """Title of a group -> its options in this command, in the order of the dataclass.

    An option without an entry in `GROUPS` goes to "run" if it is one of `RunOptions`, and to "algorithm" otherwise.
    """
    title_of = {option: title for title, options in GROUPS.items() for option in options}
    groups: dict[str, list[str]] = {title: [] for title in (*GROUPS, "run")}
    for field in dataclasses.fields(args_type):
        own = "run" if field.name in RunOptions.__dataclass_fields__ else "algorithm"
        groups[title_of.get(field.name, own)].append(field.name)
    return groups
