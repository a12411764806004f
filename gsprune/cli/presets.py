"""Where the defaults of a training command come from: a preset, or the run that is to go on."""

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

# These change neither what is learned nor how it is logged, so a resumed run may have others.
_FREE_ON_RESUME = {"preset", "run_dir", "resume", "checkpoint_minutes", "env_threads", "rank_timeout_minutes"}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run lies, and what it starts from."""

    preset: str = "paper"
    """values to start from: paper (the published ones), quick (minutes on two CPU cores) or atari (CleanRL's, for games
    such as ALE/Pong-v5); other options given come before it"""
    run_dir: Path | None = None
    """the new folder of this run; unset: a name made of environment, method, seed and time under runs/"""
    resume: Path | None = None
    """folder of a run that was interrupted: go on with it, with its own options"""
    rank_timeout_minutes: float = 30.0
    """with several processes: how long one waits for another that does not answer; longer than an evaluation takes"""


def defaults_for(
    args_type: type[Args], presets: Mapping[str, TrainConfig], algorithm: str, argv: Sequence[str]
) -> Args:
    """The defaults under which the command line is to be read.

    Args:
        args_type: the command's `Args`: a configuration and `RunOptions` in one.
        presets: preset name -> configuration.
        algorithm: "ppo" or "dqn".
        argv: the arguments of the command.

    Raises:
        ValueError: no such preset, or no run of the algorithm to go on with.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--resume")
    try:
        known, _ = parser.parse_known_args(list(argv))
    except argparse.ArgumentError:
        return args_type()  # the full parser words the complaint
    if known.resume is not None:
        values = read_config(Path(known.resume))
        if values["algorithm"] != algorithm:
            other = values["algorithm"]
            raise ValueError(f"{known.resume!r} is a run of {other}; go on with it by gsprune train {other} --resume")
        return _args_of_run(args_type, values)
    if known.preset not in presets:
        near = suggestion(known.preset, tuple(presets))
        raise ValueError(f"there is no preset {known.preset!r}; the presets are {', '.join(presets)}{near}")
    return args_type(**dataclasses.asdict(presets[known.preset]), preset=known.preset)


def base_of(args: Args, presets: Mapping[str, TrainConfig]) -> Any:
    """The configuration whose values the user did not give: the preset, or all of a run that goes on."""
    return presets[args.preset] if args.resume is None else _args_of_run(type(args), read_config(args.resume))


def _args_of_run(args_type: type[Args], values: Mapping[str, Any]) -> Args:
    fields = {field.name for field in dataclasses.fields(args_type)}
    return args_type(**{name: value for name, value in values.items() if name in fields - {"run_dir", "resume"}})


def option_values(args: RunOptions) -> dict[str, Any]:
    """The options that a run's ``config.json`` keeps."""
    values = dataclasses.asdict(args)
    return {name: value for name, value in values.items() if name not in ("run_dir", "resume")}


def refuse_changes(args: RunOptions, folder: Path, unread: Collection[str] = ()) -> None:
    """Complain if a run that is to go on was given another folder, or an option it was not begun with.

    Args:
        args: of the command.
        folder: of the run.
        unread: options that have no effect, whatever the run was begun with.

    Raises:
        ValueError: names the option.
    """
    if args.run_dir is not None:
        raise ValueError(f"--run-dir is for new runs; --resume goes on in {str(folder)!r}, so leave --run-dir out")
    saved = read_config(folder)
    for name, value in option_values(args).items():
        if name not in _FREE_ON_RESUME and name not in unread and name in saved and saved[name] != value:
            flag = "--" + name.replace("_", "-")
            raise ValueError(
                f"{flag} is {value}, but the run in {str(folder)!r} was begun with {saved[name]}; leave the option out,"
                " or begin a new run"
            )


def default_folder(config: TrainConfig, algorithm: str) -> Path:
    """A folder name that says what is in it."""
    time = datetime.now().strftime("%Y%m%d-%H%M%S")
    network = f"{config.encoder}{config.width:g}" if config.network is None else config.network
    name = f"{config.env_id}-{algorithm}-{network}-{config.pruning}-seed{config.seed}-{time}"
    return Path("runs") / re.sub(r"[^\w.-]+", "-", name)
