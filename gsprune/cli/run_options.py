"""The options of a run besides those of its training: its folder, and the source of its defaults."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gsprune.rl.training.config import TrainConfig
from gsprune.rl.training.run_folder import read_config

__all__ = ["RunOptions", "default_folder", "option_values", "refuse_changes"]

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
