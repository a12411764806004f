"""Train environments x methods x seeds, from a YAML file or from options, in local processes or on a Ray cluster.

A sweep can be stopped (Ctrl-C) and resumed with the same command: finished trials are skipped, interrupted ones resume
from their last checkpoint. Each trial has a run folder OUT/ENVIRONMENT/METHOD/seed-N, and its output is in seed-N.log
next to the folder. `gsprune report OUT` makes the report.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gsprune.checks import counted
from gsprune.cli import command_of
from gsprune.cli.console import console, say
from gsprune.sweep.display import SweepDisplay
from gsprune.sweep.folder import SweepFolder, train_command
from gsprune.sweep.launch import Launcher, LocalLauncher
from gsprune.sweep.plan import Study, Trial, parse_method, parse_options, read_study
from gsprune.sweep.ray_launcher import RayLauncher
from gsprune.sweep.runner import Job, Runner, Status, variables_for

__all__ = ["Args", "main"]

_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of ``gsprune sweep``."""

    study: Annotated[Path | None, tyro.conf.Positional] = None
    """a YAML file with games, seeds and methods, and optionally algorithm and common; the options below override it"""
    out: Path | None = None
    """the sweep's folder; unset: runs/NAME for a study NAME.yaml, else runs/sweep"""
    workers: int | None = None
    """number of parallel trials; unset: 1, on a Ray cluster as many as fit"""
    threads: int | None = None
    """threads of each trial, for the network and for the environments; unset: as in gsprune train, too many for
    several workers"""
    engine: Literal["local", "ray"] = "local"
    """where trials run: in processes of this machine, or on a Ray cluster whose machines share the sweep's folder"""
    address: str | None = None
    """address of the Ray cluster, like ray://HOST:10001 or auto; unset: RAY_ADDRESS, else start Ray on this machine"""
    cpus_per_trial: float | None = None
    """CPUs of the Ray cluster per trial; unset: its threads, or 1"""
    gpus_per_trial: float = 0.0
    """GPUs of the Ray cluster per trial; 0.5 lets two trials share one"""
    algorithm: str | None = None
    """ppo, dqn, or your own as package.module:NAME; unset: the study's, else ppo"""
    games: tuple[str, ...] = ()
    """environments by their ids: bigfish, ALE/Pong-v5, CarRacing-v3, package.module:factory"""
    seeds: tuple[int, ...] = ()
    """training seeds"""
    methods: tuple[str, ...] = ()
    """dense, group, structured, unstructured, redo, or a definition like "narrow=--pruning none --width 1"; each word
    of it is an option of gsprune train"""
    options: str = ""
    """options of every trial, in quotes: --options "--preset quick --width 1"; a method's own options override them"""
    dry_run: bool = False
    """print the trials' commands without running them"""


def normalized(argv: Sequence[str]) -> list[str]:
    """Join ``--options`` to its value, which begins with dashes, so that the parser does not take it for an option."""
    words = list(argv)
    for i in reversed(range(len(words) - 1)):
        if words[i] == "--options" and words[i + 1].startswith("-") and not _is_option_of_sweep(words[i + 1]):
            words[i : i + 2] = [f"--options={words[i + 1]}"]
    return words


def _is_option_of_sweep(word: str) -> bool:
    name = word.partition("=")[0].lstrip("-").removeprefix("no-").replace("-", "_")
    return name in {"h", "help", *(field.name for field in fields(Args))}


def main(args: Args) -> int:
    """Run the sweep; exit code 0 if all trials are finished, 1 if one failed, 130 after Ctrl-C."""
    study = _study(args)
    out = args.out or Path("runs") / (args.study.stem if args.study is not None else "sweep")
    if args.engine == "ray":
        out = out.resolve()  # Ray workers have another working directory
    elif args.address is not None:
        raise ValueError(f"`address` is {args.address!r}, which is for Ray; add --engine ray")
    elif args.cpus_per_trial is not None or args.gpus_per_trial:
        raise ValueError("`cpus_per_trial` and `gpus_per_trial` are for Ray; add --engine ray, or leave them out")
    trials = study.trials(out)
    _check_options(trials)
    folder = SweepFolder(out)
    try:
        jobs = folder.jobs(trials, args.dry_run)
        if args.dry_run:
            return _print_commands(jobs, args.threads)
        with _launcher(args) as launcher:
            runner = Runner(jobs, lambda job: train_command(job, args.threads), launcher)
            with SweepDisplay(console, jobs) as display:
                runner.run(display.on_poll)
    finally:
        folder.close()
    return _conclude(jobs, runner.interrupted, out)


@contextmanager
def _launcher(args: Args) -> Iterator[Launcher]:
    """The launcher of the trials."""
    variables = variables_for(args.threads)
    if args.engine == "local":
        yield LocalLauncher(1 if args.workers is None else args.workers, variables)
        return
    cpus = args.cpus_per_trial if args.cpus_per_trial is not None else float(args.threads or 1)
    ray = RayLauncher(variables, args.address, cpus, args.gpus_per_trial, args.workers)
    try:
        yield ray
    finally:
        ray.close()


def _study(args: Args) -> Study:
    """The study of the file, overridden by the options."""
    if args.study is None and not (args.games and args.seeds and args.methods):
        raise ValueError("give a YAML file, or --games, --seeds and --methods; see gsprune sweep --help")
    study = {} if args.study is None else dict(vars(read_study(args.study)))
    methods = dict(map(parse_method, args.methods))
    own = {"games": args.games, "seeds": args.seeds, "methods": methods, "algorithm": args.algorithm}
    study |= {name: value for name, value in own.items() if value}
    study["common"] = {**study.get("common", {}), **parse_options(args.options)}
    return Study(**study)


def _check_options(trials: Sequence[Trial]) -> None:
    """Parse every method's options like its trainer, so that a wrong option is found before any trial runs."""
    words = f"train {trials[0].algorithm}"
    command = command_of(words)
    for trial in {trial.method: trial for trial in trials}.values():
        options = ["--env-id", trial.game, "--seed", str(trial.seed), *trial.arguments]
        prog, default = f"gsprune {words} (method {trial.method})", command.defaults(options)
        args = tyro.cli(command.Args, prog=prog, args=options, default=default)
        try:
            command.effective(args).check()
        except ValueError as error:
            raise ValueError(f"method {trial.method!r}: {error}") from error


def _print_commands(jobs: list[Job], threads: int | None) -> int:
    for job in jobs:
        if job.status is Status.WAITING:
            say(shlex.join(train_command(job, threads)))
    skipped = sum(job.status is Status.SKIPPED for job in jobs)
    say(f"{counted(len(jobs) - skipped, 'trial')} to run, {skipped} finished before")
    return 0


def _conclude(jobs: list[Job], interrupted: bool, out: Path) -> int:
    failed = sum(job.status is Status.FAILED for job in jobs)
    finished = sum(job.status in (Status.FINISHED, Status.SKIPPED) for job in jobs)
    say(f"{finished} of {len(jobs)} trials are finished, {failed} failed")
    if finished:
        say(f"make the report with: gsprune report {out}")
    if finished < len(jobs):
        say("resume with the same command")
    if interrupted:
        return _INTERRUPTED
    return 1 if failed else 0
