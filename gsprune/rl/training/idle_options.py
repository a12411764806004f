"""Options that have no effect because of other options of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from gsprune.rl.training.config import TrainConfig

__all__ = ["IGNORED_BY", "idle_options", "refuse_idle", "without_idle"]

Config = TypeVar("Config", bound="TrainConfig")

_SCHEDULE = ("sparsity", "prune_begin", "prune_end")
_LATENCY = ("latency_engine", "latency_batch")
_CHANNELS = (
    *("importance", "scope", "target", "latency_budget_ms", *_LATENCY, "round_to", "min_channels", "rescale"),
    *("compensate", "calibration_frames"),
)

IGNORED_BY: Mapping[str, tuple[str, ...]] = {
    "none": (*_CHANNELS, "backend", *_SCHEDULE, "prune_interval"),
    "redo": (*_CHANNELS, "backend", *_SCHEDULE),
    "structured": (*_CHANNELS, "backend"),
    "unstructured": (*_CHANNELS, "backend"),
    "group": (),
}
"""Pruning method -> options of the trainers that it does not read."""


def refuse_idle(config: TrainConfig) -> None:
    """Raise an error for the first option that was set but has no effect.

    Raises:
        ValueError: names the option, its value, why it is ignored and the way out.
    """
    for name, reason in idle_options(config).items():
        default = _defaults(config)[name]
        if getattr(config, name) != default:
            raise ValueError(
                f"`{name}` has no effect {reason}, got {getattr(config, name)!r}; leave it out (its default is"
                f" {default!r}), or change the other option"
            )


def without_idle(config: Config, base: TrainConfig) -> Config:
    """Reset options without effect to their defaults, unless the user changed them.

    `config` is the preset `base` with the user's changes, perhaps for another pruning method.
    """
    defaults, names = _defaults(config), {field.name for field in fields(base)}
    idle = [name for name in idle_options(config) if name in names and getattr(config, name) == getattr(base, name)]
    return replace(config, **{name: defaults[name] for name in idle})


def _defaults(config: TrainConfig) -> dict[str, Any]:
    return {field.name: field.default for field in fields(config)}


def idle_options(config: TrainConfig) -> dict[str, str]:
    """Option -> the reason why it has no effect."""
    idle = {name: f"with `pruning` {config.pruning}" for name in IGNORED_BY[config.pruning]}
    if config.target != "latency":
        idle |= {name: idle.get(name, f"with `target` {config.target}") for name in _LATENCY}
    elif config.pruning == "group":
        idle["sparsity"] = "with `target` latency, whose schedule ends at `latency_budget_ms`"
    if config.pruning == "group" and not config.calibrates:
        idle["calibration_frames"] = f"with `compensate` none and `importance` {config.importance}"
    if config.eval_interval_episodes == 0:
        idle["eval_points"] = "with `eval_interval_episodes` 0"
        if config.eval_episodes == 0:
            idle["eval_num_envs"] = "with `eval_episodes` 0 and `eval_interval_episodes` 0"
    if config.network is not None:
        idle |= dict.fromkeys(("encoder", "width", "num_features"), "with a `network` of your own")
    elif ":" in config.encoder:
        idle |= dict.fromkeys(("width", "num_features"), "with an `encoder` of your own")
    if config.compile:
        idle["workers"] = "with `compile`, whose functions take whole batches"
    elif config.device.startswith("cuda"):
        idle["workers"] = f"on `device` {config.device}"
    idle |= config.idle_by_algorithm()
    return {name: reason for name, reason in idle.items() if hasattr(config, name)}
