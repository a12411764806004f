"""The parts of ``gsprune train`` that all algorithms share: run folder, signals, display and summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from gsprune.cli.console import console, say
from gsprune.cli.memory import keep_freed_memory
from gsprune.cli.progress import TrainingDisplay
from gsprune.cli.run_options import RunOptions, default_folder, option_values, refuse_changes
from gsprune.distributed.ranks import Ranks, joined_ranks
from gsprune.errors import DistributedError, EnvironmentFailedError
from gsprune.interrupts import StopRequest
from gsprune.report.plot_run import plot_run
from gsprune.rl.algorithms.algorithm import Algorithm
from gsprune.rl.envs.registry import provider_of
from gsprune.rl.training.config import TrainConfig, resolve_device
from gsprune.rl.training.idle_options import idle_options
from gsprune.rl.training.run_folder import RunFolder, is_finished
from gsprune.rl.training.summary import RunSummary, summarize, write_summary
from gsprune.rl.training.trainer import Trainer

__all__ = ["run_training"]

_INTERRUPTED = 130
_LAUNCHER_SECONDS = 3.0  # torchrun forwards a Ctrl-C within this time


def run_training(config: TrainConfig, options: RunOptions, algorithm: Algorithm) -> int:
    """Train in a run folder, from the start or from its last checkpoint, alone or in all processes of a launcher.

    Returns:
        exit code: 0, or 130 if the run was stopped and can be resumed.
    """
    config.check()
    provider_of(config.env_id).require()  # raises before a run folder is made if a package is missing
    keep_freed_memory()
    on_gpus = resolve_device(config.device).type == "cuda"
    with joined_ranks(on_gpus, options.rank_timeout_minutes) as ranks:
        # A separate function, so that no trainer refers to the process group when `joined_ranks` leaves it.
        return _run(config, options, algorithm, ranks)


def _run(config: TrainConfig, options: RunOptions, algorithm: Algorithm, ranks: Ranks) -> int:
    """Do the work of `run_training` in one of the processes."""
    console.quiet = not ranks.is_first
    finished = ranks.from_first(lambda: _finished_run(config, options))
    if finished is not None:
        say(f"the run is finished, nothing was changed; {_results_hint(finished)}")
        return 0
    run = _open_folder(config, options, algorithm.name, ranks)
    say(f"run folder: {run.path}")
    if not ranks.is_alone:
        say(f"{ranks.size} processes, {config.num_envs} environments together")
    try:
        trainer = algorithm.trainer(config, run, options.resume is not None, say, ranks)
        try:
            complete = _train(trainer, config, ranks)
            if complete and ranks.is_first:
                _conclude(trainer, config, run)
        except (KeyboardInterrupt, EnvironmentFailedError):
            say(f"resume from the last checkpoint {_resume_hint(algorithm, run)}")
            raise
        finally:
            trainer.close()
    except DistributedError:
        say(f"resume from the last checkpoint, on any number of processes, {_resume_hint(algorithm, run)}")
        raise
    finally:
        run.undo_create()  # if it could not start, for example because of an unreachable latency budget
        run.close()
    if complete:
        return 0
    say(f"stopped after {trainer.global_step:,} steps; the checkpoint is in {run.checkpoints}")
    say(f"resume {_resume_hint(algorithm, run)}")
    return _INTERRUPTED


def _finished_run(config: TrainConfig, options: RunOptions) -> Path | None:
    """The folder of the run to resume if that run is already finished, else None. The folder is not locked."""
    if options.resume is None:
        return None
    refuse_changes(options, options.resume, idle_options(config))
    return options.resume if is_finished(options.resume) else None


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


def _train(trainer: Trainer[Any], config: TrainConfig, ranks: Ranks) -> bool:
    """Train with a display, until the end or a signal."""
    with TrainingDisplay(console, config.total_timesteps, trainer.global_step) as display:
        notice = "stopping after this iteration; Ctrl-C again stops at once, and the last checkpoint stays usable"
        with StopRequest(lambda: display.say(notice), grace=0.0 if ranks.is_alone else _LAUNCHER_SECONDS) as stop:
            try:
                return trainer.train(lambda: stop.requested, display.show, display.show_activity)
            except DistributedError:
                stop.ends_by_itself = True
                raise


def _resume_hint(algorithm: Algorithm, run: RunFolder) -> str:
    return f"with: gsprune train {algorithm.name} --resume {run.path}"


def _results_hint(run: Path) -> str:
    return f"its results are in {run / 'summary.md'}; to evaluate it again: gsprune eval {run}"


def _conclude(trainer: Trainer[Any], config: TrainConfig, run: RunFolder) -> None:
    """Evaluate the agent and time its network; write the results to the folder and print them."""
    doing = "evaluating the agent and timing its network"
    if not console.is_terminal:
        say(doing)
    with console.status(doing):
        summary = summarize(trainer, config)
    plot_run(run.path, trainer.dense.widths)
    write_summary(summary, run.path)
    _print_summary(summary)
    say(f"summary.md, curves.png, metrics.jsonl and checkpoints are in {run.path}")


def _print_summary(summary: RunSummary) -> None:
    """Print the results of a run as tables."""
    network = Table("network", title=f"{summary.env_id}, pruning: {summary.pruning}")
    for heading in ("start", "end"):
        network.add_column(heading, justify="right")
    for network_row in summary.network_rows():
        network.add_row(*network_row)
    results = Table("run")
    results.add_column("", justify="right")
    for result_row in summary.result_rows():
        results.add_row(*result_row)
    console.print(network)
    console.print(results)
