"""The summary of a run: sizes, latencies and returns, as JSON and as a Markdown table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from gsprune.engines.budget import LatencyBudget
from gsprune.engines.portable_call import portable_call
from gsprune.engines.registry import load
from gsprune.engines.timing import Latency, forwards_in_turns
from gsprune.files import write_atomically
from gsprune.networks import ObservationShape, example_frames
from gsprune.rl.training.config import TrainConfig
from gsprune.rl.training.trainer import Trainer

__all__ = ["RunSummary", "summarize", "write_summary"]

_TIMING_SECONDS = 5.0  # at most, for both networks


@dataclass(frozen=True)
class RunSummary:
    """The results of a run.

    Attributes:
        env_id: the game.
        pruning: the method.
        requested_sparsity: the requested sparsity, in the unit of `target`; None for a latency budget.
        latency_budget: the requested budget in words; None for a sparsity.
        target: the unit of the sparsity.
        sparsity: the sparsity that the method reached, in the unit of `target`.
        channel_sparsity: the removed fraction of the first channels.
        param_sparsity: the removed fraction of the first parameters.
        mac_sparsity: the removed fraction of the first MACs.
        widths: group -> (width at the start, width at the end).
        params: parameters at the start and at the end.
        macs: MACs per frame at the start and at the end.
        latency_ms: median milliseconds of one forward at batch size 1 on one CPU thread, for the dense and the final
            network, timed in turns in one process. Calls that the system interrupted do not count.
        latency_p99_ms: the 99th percentile of all these calls.
        budgeted_ms: like `latency_ms`, but with engine, threads and batch of the latency budget; None without one.
        train_return: mean return on the training levels; None without such levels, or if not evaluated.
        test_return: mean return on the full distribution, or in an environment without levels; None if not evaluated.
        steps: environment steps.
        seconds: training time, without evaluations.
        evaluation_seconds: time of all evaluations, during the training and at its end.
    """

    env_id: str
    pruning: str
    requested_sparsity: float | None
    latency_budget: str | None
    target: str
    sparsity: float
    channel_sparsity: float
    param_sparsity: float
    mac_sparsity: float
    widths: dict[str, tuple[int, int]]
    params: tuple[int, int]
    macs: tuple[float, float]
    latency_ms: tuple[float, float]
    latency_p99_ms: tuple[float, float]
    budgeted_ms: tuple[float, float] | None
    train_return: float | None
    test_return: float | None
    steps: int
    seconds: float
    evaluation_seconds: float

    def network_rows(self) -> list[tuple[str, str, str]]:
        """(name, value at the start, value at the end) for each group and each cost."""
        rows = [(f"width of {name}", str(before), str(after)) for name, (before, after) in self.widths.items()]
        rows.append(("parameters", f"{self.params[0]:,}", f"{self.params[1]:,}"))
        rows.append(("MACs per frame", f"{self.macs[0] / 1e6:.2f} M", f"{self.macs[1] / 1e6:.2f} M"))
        for what, (before, after) in (
            ("latency, batch 1, 1 thread", self.latency_ms),
            ("its 99th percentile", self.latency_p99_ms),
        ):
            rows.append((what, f"{before:.2f} ms", f"{after:.2f} ms"))
        if self.budgeted_ms is not None:
            dense, pruned = self.budgeted_ms
            rows.append(("latency as budgeted", f"{dense:.3g} ms", f"{pruned:.3g} ms"))
        return rows

    def result_rows(self) -> list[tuple[str, str]]:
        """(name, value) for results without a value at the start."""
        rows = [
            ("requested", self._request()),
            ("sparsity reached: channels", f"{self.channel_sparsity:.3f}"),
            ("sparsity reached: parameters", f"{self.param_sparsity:.3f}"),
            ("sparsity reached: MACs", f"{self.mac_sparsity:.3f}"),
        ]
        if self.train_return is not None:
            rows.append(("return, training levels", f"{self.train_return:.2f}"))
        if self.test_return is not None:
            name = "return" if self.train_return is None else "return, full distribution"
            rows.append((name, f"{self.test_return:.2f}"))
        rows.append(("environment steps", f"{self.steps:,}"))
        rows.append(("training time", f"{self.seconds:.0f} s, {self.steps / max(self.seconds, 1e-9):.0f} steps/s"))
        rows.append(("evaluation time", f"{self.evaluation_seconds:.0f} s"))
        return rows

    def _request(self) -> str:
        if self.pruning == "none":
            return "none"
        return self.latency_budget or f"sparsity {self.requested_sparsity:g} of {self.target}"

    def markdown(self) -> str:
        """The table as Markdown."""
        network = [f"| {what} | {before} | {after} |" for what, before, after in self.network_rows()]
        results = [f"| {what} | {value} |" for what, value in self.result_rows()]
        heading = [f"# {self.env_id}, pruning: {self.pruning}", "", "| network | start | end |", "|---|---:|---:|"]
        return "\n".join([*heading, *network, "", "| run | |", "|---|---:|", *results, ""])


def summarize(trainer: Trainer[Any], config: TrainConfig) -> RunSummary:
    """Evaluate the agent, time its network and a dense one, and collect the results."""
    seconds = trainer.seconds  # read first, so that the timing below does not count
    returns = trainer.evaluations.run(config.eval_episodes)
    dense, size = trainer.dense, trainer.size
    row = size.row(dense)
    networks = trainer.build_dense(), trainer.agent
    shape = trainer.environment.observation_shape
    timings = _timed(networks, shape, "eager", threads=1, batch=1)
    return RunSummary(
        env_id=config.env_id,
        pruning=config.pruning,
        requested_sparsity=config.sparsity if config.budget is None else None,
        latency_budget=None if config.budget is None else str(config.budget),
        target=config.target,
        sparsity=trainer.sparsity,
        channel_sparsity=row["pruning/channel_sparsity"],
        param_sparsity=row["pruning/param_sparsity"],
        mac_sparsity=row["pruning/mac_sparsity"],
        widths={name: (before, size.widths[name]) for name, before in dense.widths.items()},
        params=(dense.params, size.params),
        macs=(dense.macs, size.macs),
        latency_ms=(1e3 * timings[0].undisturbed, 1e3 * timings[1].undisturbed),
        latency_p99_ms=(1e3 * timings[0].p99, 1e3 * timings[1].p99),
        budgeted_ms=None if config.budget is None else _budgeted(networks, shape, config.budget),
        train_return=returns.get("eval/train_return"),
        test_return=returns.get("eval/test_return"),
        steps=trainer.global_step,
        seconds=seconds,
        evaluation_seconds=trainer.evaluations.seconds,
    )


def write_summary(summary: RunSummary, folder: Path) -> None:
    """Write ``summary.md``, then ``summary.json``, which marks the run as finished."""
    write_atomically(folder / "summary.md", summary.markdown().encode())
    write_atomically(folder / "summary.json", json.dumps(asdict(summary), indent=2).encode())


def _budgeted(networks: Sequence[nn.Module], shape: ObservationShape, budget: LatencyBudget) -> tuple[float, float]:
    """Milliseconds of the dense and of the pruned network in the setting of the budget."""
    dense, pruned = _timed(networks, shape, budget.engine, budget.threads, budget.batch or 1)
    return 1e3 * dense.undisturbed, 1e3 * pruned.undisturbed


def _timed(
    networks: Sequence[nn.Module], shape: ObservationShape, engine: str, threads: int, batch: int
) -> list[Latency]:
    """Time forwards of all networks in turns, on the CPU."""
    frames = example_frames(batch, observation_shape=shape)
    forwards = load(engine, [portable_call(network, frames) for network in networks], threads)
    return forwards_in_turns(forwards, threads, batch=batch, max_seconds=_TIMING_SECONDS)
