"""The defaults of a training command: those of a preset, or the options of the run to resume."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from gsprune.checks import suggestion
from gsprune.rl.training.config import TrainConfig
from gsprune.rl.training.run_folder import read_config

__all__ = ["RunOptions", "base_of", "default_folder", "defaults_for", "option_values", "refuse_changes"]

Args = TypeVar("Args", bound="RunOptions")

# These options affect neither the learning nor the log, so a resumed run may change them.
_FREE_ON_RESUME = {
    *("preset", "run_dir", "resume", "checkpoint_minutes", "env_threads", "workers", "rank_timeout_minutes")
}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The folder of a run, and the source of its options."""

    preset: str = "paper"
    """defaults of all other options: paper (the published ones), quick (minutes on two CPU cores) or atari (CleanRL's,
    for games such as ALE/Pong-v5); options on the command line override them"""
    run_dir: Path | None = None
    """new folder of this run; unset: a folder in runs/ named after environment, method, seed and time"""
    resume: Path | None = None
    """folder of an interrupted run: resume it, with its own options"""
    rank_timeout_minutes: float = 30.0
    """with several processes: minutes to wait for one that does not answer; must exceed the time of an evaluation"""


def defaults_for(
    args_type: type[Args], presets: Mapping[str, TrainConfig], algorithm: str, argv: Sequence[str]
) -> Args:
    """The defaults for parsing the command line `argv`: of its preset, or of the run that it resumes.

    Raises:
        ValueError: the preset is unknown, or there is no run of the algorithm to resume.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--resume")
    try:
        parsed, _ = parser.parse_known_args(list(argv))
    except argparse.ArgumentError:
        return args_type()  # the full parser raises the error
    if parsed.resume is not None:
        values = read_config(Path(parsed.resume))
        if values["algorithm"] != algorithm:
            other = values["algorithm"]
            raise ValueError(f"{parsed.resume!r} is a run of {other}; resume it with gsprune train {other} --resume")
        return _args_of_run(args_type, values)
    if parsed.preset not in presets:
        near = suggestion(parsed.preset, tuple(presets))
        raise ValueError(f"there is no preset {parsed.preset!r}; the presets are {', '.join(presets)}{near}")
    return args_type(**dataclasses.asdict(presets[parsed.preset]), preset=parsed.preset)


def base_of(args: Args, presets: Mapping[str, TrainConfig]) -> Any:
    """The configuration before the user's changes: the preset, or the options of the run to resume."""
    return presets[args.preset] if args.resume is None else _args_of_run(type(args), read_config(args.resume))


def _args_of_run(args_type: type[Args], values: Mapping[str, Any]) -> Args:
    fields = {field.name for field in dataclasses.fields(args_type)}
    return args_type(**{name: value for name, value in values.items() if name in fields - {"run_dir", "resume"}})


def option_values(args: RunOptions) -> dict[str, Any]:
    """The options to store in a run's ``config.json``."""
    values = dataclasses.asdict(args)
    return {name: value for name, value in values.items() if name not in ("run_dir", "resume")}


def refuse_changes(args: RunOptions, folder: Path, unread: Collection[str] = ()) -> None:
    """Raise an error if the user changes the folder or an option of the run to resume.

    Args:
        args: the command's options.
        folder: the run's folder.
        unread: options without effect, which may differ from the run's.

    Raises:
        ValueError: names the option.
    """
    if args.run_dir is not None:
        raise ValueError(f"--run-dir is for new runs; --resume continues in {str(folder)!r}, so leave --run-dir out")
    saved = read_config(folder)
    for name, value in option_values(args).items():
        if name not in _FREE_ON_RESUME and name not in unread and name in saved and saved[name] != value:
            flag = "--" + name.replace("_", "-")
            raise ValueError(
                f"{flag} is {value}, but the run in {str(folder)!r} was started with {saved[name]}; leave the option"
                " out, or start a new run"
            )


def default_folder(config: TrainConfig, algorithm: str) -> Path:
    """A folder named after game, algorithm, network, pruning, seed and time."""
    time = datetime.now().strftime("%Y%m%d-%H%M%S")
    network = f"{config.encoder}{config.width:g}" if config.network is None else config.network
    name = f"{config.env_id}-{algorithm}-{network}-{config.pruning}-seed{config.seed}-{time}"
    return Path("runs") / re.sub(r"[^\w.-]+", "-", name)
