"""The parts of ``gsprune train`` that all algorithms share: run folder, signals, display and summary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from rich.console import Console

from gsprune.cli.memory import keep_freed_memory
from gsprune.cli.presets import RunOptions, default_folder, option_values, refuse_changes
from gsprune.cli.progress import TrainingDisplay
from gsprune.cli.summary_table import print_summary
from gsprune.distributed.ranks import Ranks, joined_ranks
from gsprune.errors import DistributedError
from gsprune.interrupts import StopRequest
from gsprune.rl.envs.registry import provider_of
from gsprune.rl.training.checkpoints import checkpoint_folders
from gsprune.rl.training.config import TrainConfig, resolve_device
from gsprune.rl.training.curves import plot_curves
from gsprune.rl.training.idle_options import idle_options
from gsprune.rl.training.metrics import Row
from gsprune.rl.training.run_folder import RunFolder
from gsprune.rl.training.summary import Summarized, summarize, write_summary
from gsprune.rl.training.trainer import OnActivity

__all__ = ["MakeTrainer", "Trainer", "run_training"]

_INTERRUPTED = 130
_LAUNCHER_SECONDS = 3.0  # torchrun forwards a Ctrl-C within this time


class Trainer(Summarized, Protocol):
    """The interface of the algorithms' trainers."""

    def train(
        self, should_stop: Callable[[], bool], on_row: Callable[[int, Row], None], on_activity: OnActivity
    ) -> bool:
        """Train to the end and return True; or, if asked to stop, write a checkpoint and return False."""

    def close(self) -> None:
        """Close environments and files."""


MakeTrainer = Callable[[RunFolder, bool, Callable[[str], None], Ranks], Trainer]
"""(run folder, True to resume, function that prints a line, ranks) -> trainer."""


def run_training(config: TrainConfig, options: RunOptions, make_trainer: MakeTrainer, algorithm: str) -> int:
    """Train in a run folder, from the start or from its last checkpoint, alone or in all processes of a launcher.

    Args:
        config: the options of the trainer.
        options: the folder.
        make_trainer: creates the trainer.
        algorithm: "ppo" or "dqn".

    Returns:
        exit code: 0, or 130 if the run was stopped and can be resumed.
    """
    config.check()
    provider_of(config.env_id).require()  # raises before a run folder is made if a package is missing
    keep_freed_memory()
    on_gpus = resolve_device(config.device).type == "cuda"
    with joined_ranks(on_gpus, options.rank_timeout_minutes) as ranks:
        # A separate function, so that no trainer refers to the process group when `joined_ranks` leaves it.
        return _run(config, options, make_trainer, algorithm, ranks)


def _run(config: TrainConfig, options: RunOptions, make_trainer: MakeTrainer, algorithm: str, ranks: Ranks) -> int:
    """Do the work of `run_training` in one of the processes."""
    console = Console(quiet=not ranks.is_first)
    finished = ranks.from_first(lambda: _finished_run(config, options))
    if finished is not None:
        _say(console, f"the run is finished, nothing was changed; {_results_hint(finished)}")
        return 0
    run = _open_folder(config, options, algorithm, ranks)
    _say(console, f"run folder: {run.path}")
    if not ranks.is_alone:
        _say(console, f"{ranks.size} processes, {config.num_envs} environments together")
    try:
        trainer = _create_trainer(make_trainer, run, options.resume is not None, console, ranks)
        try:
            complete = _train(trainer, config, console, ranks)
            if complete and ranks.is_first:
                _conclude(trainer, config, run, console)
        except KeyboardInterrupt:
            _say(console, f"resume from the last checkpoint {_resume_hint(algorithm, run)}")
            raise
        finally:
            trainer.close()
    except DistributedError:
        _say(console, f"resume from the last checkpoint, on any number of processes, {_resume_hint(algorithm, run)}")
        raise
    finally:
        run.close()
    if complete:
        return 0
    _say(console, f"stopped after {trainer.global_step:,} steps; the checkpoint is in {run.checkpoints}")
    _say(console, f"resume {_resume_hint(algorithm, run)}")
    return _INTERRUPTED


def _finished_run(config: TrainConfig, options: RunOptions) -> Path | None:
    """The folder of the run to resume if that run is already finished, else None. The folder is not locked."""
    if options.resume is None:
        return None
    refuse_changes(options, options.resume, idle_options(config))
    return options.resume if RunFolder.without_lock(options.resume).is_finished else None


def _open_folder(config: TrainConfig, options: RunOptions, algorithm: str, ranks: Ranks) -> RunFolder:
    """The run's folder. The first process opens and locks it for all."""
    folders: list[RunFolder] = []

    def open_it() -> Path:
        if options.resume is not None:
            folders.append(RunFolder.open(options.resume))
        else:
            folder = options.run_dir or default_folder(config, algorithm)
            folders.append(RunFolder.create(folder, algorithm, option_values(options)))
        return folders[0].path

    path = ranks.from_first(open_it)
    return folders[0] if folders else RunFolder.without_lock(path)


def _create_trainer(make_trainer: MakeTrainer, run: RunFolder, resume: bool, console: Console, ranks: Ranks) -> Trainer:
    """Create the trainer. On failure, for example for an unreachable latency budget, remove a new run's folder."""
    try:
        return make_trainer(run, resume, lambda line: _say(console, line), ranks)
    except BaseException:
        if not checkpoint_folders(run.checkpoints):
            run.undo_create()
        raise


def _train(trainer: Trainer, config: TrainConfig, console: Console, ranks: Ranks) -> bool:
    """Train with a display, until the end or a signal."""
    with TrainingDisplay(console, config.total_timesteps, trainer.global_step) as display:
        notice = "stopping after this iteration; Ctrl-C again stops at once, and the last checkpoint stays usable"
        with StopRequest(lambda: display.say(notice), grace=0.0 if ranks.is_alone else _LAUNCHER_SECONDS) as stop:
            try:
                return trainer.train(lambda: stop.requested, display.show, display.show_activity)
            except DistributedError:
                stop.ends_by_itself = True
                raise


def _resume_hint(algorithm: str, run: RunFolder) -> str:
    return f"with: gsprune train {algorithm} --resume {run.path}"


def _results_hint(run: Path) -> str:
    return f"its results are in {run / 'summary.md'}; to evaluate it again: gsprune eval {run}"


def _conclude(trainer: Trainer, config: TrainConfig, run: RunFolder, console: Console) -> None:
    """Evaluate the agent and time its network; write the results to the folder and print them."""
    doing = "evaluating the agent and timing its network"
    if not console.is_terminal:
        _say(console, doing)
    with console.status(doing):
        summary = summarize(trainer, config)
    plot_curves(run.path, trainer.dense.widths)
    write_summary(summary, run.path)
    print_summary(summary, run.path, console)


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True)
