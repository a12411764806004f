"""What came out of a run: sizes, latencies and returns, as JSON and as a Markdown table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from torch import nn

from gsprune.engines.budget import LatencyBudget
from gsprune.engines.engine import prepared
from gsprune.engines.timing import forwards_in_turns
from gsprune.measure import latencies
from gsprune.networks import example_frames
from gsprune.rl.config import TrainConfig
from gsprune.rl.pruning import NetworkSize
from gsprune.rl.run import write_atomically

__all__ = ["RunSummary", "Summarized", "summarize", "write_summary"]

_TIMING_SECONDS = 5.0  # at most, for both networks


class Summarized(Protocol):
    """What a summary reads of a trainer."""

    dense: NetworkSize
    size: NetworkSize
    global_step: int
    sparsity: float

    @property
    def agent(self) -> nn.Module:
        """The network, as small as it is now."""

    @property
    def seconds(self) -> float:
        """Seconds of training."""

    def build_dense(self) -> nn.Module:
        """A dense network of the same kind and layout, freshly initialised, on the same device."""

    def evaluate(self, episodes: int) -> dict[str, float]:
        """Mean returns as ``eval/train_return`` and ``eval/test_return``."""


@dataclass(frozen=True)
class RunSummary:
    """The end of a run.

    Attributes:
        env_id: the game.
        pruning: the method.
        requested_sparsity: what was asked for, of `target`; None where it was a budget of milliseconds.
        latency_budget: the budget that was asked for, in words; None where it was a sparsity.
        target: what the sparsity counts.
        sparsity: what the method reached, of `target`.
        channel_sparsity: fraction of the first channels that is gone.
        param_sparsity: fraction of the first parameters that is gone.
        mac_sparsity: fraction of the first MACs that is gone.
        widths: group -> (width at the start, width at the end).
        params: parameters at the start and at the end.
        macs: MACs per frame at the start and at the end.
        latency_ms: median milliseconds of one forward at batch size 1, of the dense network and of this one, measured
            in turn in the same process.
        budgeted_ms: the same in the engine, with the threads and the batch of the budget, if there was one.
        train_return: mean return on the training levels; None if not evaluated.
        test_return: mean return on the full distribution; None if not evaluated.
        steps: environment steps.
        seconds: of training.
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
    budgeted_ms: tuple[float, float] | None
    train_return: float | None
    test_return: float | None
    steps: int
    seconds: float

    def network_rows(self) -> list[tuple[str, str, str]]:
        """(what, at the start, at the end) for each group and each cost."""
        rows = [(f"width of {name}", str(before), str(after)) for name, (before, after) in self.widths.items()]
        rows.append(("parameters", f"{self.params[0]:,}", f"{self.params[1]:,}"))
        rows.append(("MACs per frame", f"{self.macs[0] / 1e6:.2f} M", f"{self.macs[1] / 1e6:.2f} M"))
        rows.append(("latency, batch 1", f"{self.latency_ms[0]:.2f} ms", f"{self.latency_ms[1]:.2f} ms"))
        if self.budgeted_ms is not None:
            dense, pruned = self.budgeted_ms
            rows.append(("latency as budgeted", f"{dense:.3g} ms", f"{pruned:.3g} ms"))
        return rows

    def result_rows(self) -> list[tuple[str, str]]:
        """(what, value) for what has no start."""
        rows = [
            ("asked for", self._asked()),
            ("sparsity reached: channels", f"{self.channel_sparsity:.3f}"),
            ("sparsity reached: parameters", f"{self.param_sparsity:.3f}"),
            ("sparsity reached: MACs", f"{self.mac_sparsity:.3f}"),
        ]
        if self.train_return is not None and self.test_return is not None:
            rows.append(("return, training levels", f"{self.train_return:.2f}"))
            rows.append(("return, full distribution", f"{self.test_return:.2f}"))
        rows.append(("environment steps", f"{self.steps:,}"))
        rows.append(("training time", f"{self.seconds:.0f} s, {self.steps / max(self.seconds, 1e-9):.0f} steps/s"))
        return rows

    def _asked(self) -> str:
        if self.pruning == "none":
            return "none"
        return self.latency_budget or f"sparsity {self.requested_sparsity:g} of {self.target}"

    def markdown(self) -> str:
        """The table as Markdown."""
        network = [f"| {what} | {before} | {after} |" for what, before, after in self.network_rows()]
        results = [f"| {what} | {value} |" for what, value in self.result_rows()]
        heading = [f"# {self.env_id}, pruning: {self.pruning}", "", "| network | start | end |", "|---|---:|---:|"]
        return "\n".join([*heading, *network, "", "| run | |", "|---|---:|", *results, ""])


def summarize(trainer: Summarized, config: TrainConfig) -> RunSummary:
    """Evaluate the agent, time its network against a dense one, and put all of it together."""
    returns = trainer.evaluate(config.eval_episodes)
    dense, size = trainer.dense, trainer.size
    row = size.row(dense)
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
        latency_ms=_latencies(trainer.build_dense(), trainer.agent),
        budgeted_ms=None if config.budget is None else _budgeted(trainer.build_dense(), trainer.agent, config.budget),
        train_return=returns.get("eval/train_return"),
        test_return=returns.get("eval/test_return"),
        steps=trainer.global_step,
        seconds=trainer.seconds,
    )


def write_summary(summary: RunSummary, folder: Path) -> None:
    """Write ``summary.json`` and ``summary.md``."""
    write_atomically(folder / "summary.json", json.dumps(asdict(summary), indent=2).encode())
    write_atomically(folder / "summary.md", summary.markdown().encode())


def _latencies(dense: nn.Module, agent: nn.Module) -> tuple[float, float]:
    """Median milliseconds at batch size 1 of both networks, timed in turns."""
    timed = latencies([dense, agent], example_frames(), max_seconds=_TIMING_SECONDS)
    return timed[0].median * 1e3, timed[1].median * 1e3


def _budgeted(dense: nn.Module, agent: nn.Module, budget: LatencyBudget) -> tuple[float, float]:
    """Milliseconds of both networks as the budget counts them, timed in turns."""
    frames = example_frames(budget.batch or 1)
    runs = [prepared(budget.engine, network, frames, threads=budget.threads) for network in (dense, agent)]
    dense_timing, timing = forwards_in_turns(runs, budget.threads, max_seconds=_TIMING_SECONDS)
    return dense_timing.undisturbed_ms, timing.undisturbed_ms
