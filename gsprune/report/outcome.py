"""The results of a run, from its summary, its evaluation and its last row of metrics."""

from __future__ import annotations

from dataclasses import dataclass

from gsprune.report.load import RunRecord
from gsprune.rl.envs.registry import score_range_of

__all__ = ["Outcome", "outcome_of"]


@dataclass(frozen=True)
class Outcome:
    """The results of one run. A result that is not available yet is None.

    Attributes:
        run: the run.
        steps: environment steps trained.
        seconds: training time, without evaluations.
        train_return: mean return on the training levels, at the end or at the last evaluation; None for an environment
            without such levels.
        test_return: the same on the full distribution of levels, or in an environment without levels.
        training_return: mean return of the last 100 training episodes.
        sparsity: fraction of channels that are removed, or of weights that are masked.
        channel_sparsity: fraction of the channels that are removed.
        param_sparsity: fraction of the parameters that are removed.
        params: parameters at the end.
        macs: multiplications with weights for one frame at the end.
        latency_ms: time of one forward pass with one frame on one thread at the end, milliseconds.
        dense_latency_ms: the same for the dense network, measured in the same process.
        largest_kl: largest KL divergence of the policy over all pruning steps, on frames that compensation did not use.
        largest_action_change: largest fraction of changed greedy actions over all pruning steps, on the same frames.
        largest_value_error: largest change of the values over all pruning steps, in standard deviations, on the same
            frames.
    """

    run: RunRecord
    steps: int | None
    seconds: float | None
    train_return: float | None
    test_return: float | None
    training_return: float | None
    sparsity: float | None
    channel_sparsity: float | None
    param_sparsity: float | None
    params: float | None
    macs: float | None
    latency_ms: float | None
    dense_latency_ms: float | None
    largest_kl: float | None
    largest_action_change: float | None
    largest_value_error: float | None

    @property
    def measured_a_step(self) -> bool:
        """True if the effect of a pruning step was measured."""
        effects = (self.largest_kl, self.largest_action_change, self.largest_value_error)
        return any(effect is not None for effect in effects)

    @property
    def normalised_test(self) -> float | None:
        """The test return on the game's 0-to-1 scale; None for a game without one."""
        scale = score_range_of(self.run.game, self.run.difficulty)
        return None if self.test_return is None or scale is None else scale.normalised(self.test_return)


def outcome_of(run: RunRecord) -> Outcome:
    """Collect the results of a run.

    Returns come from `gsprune eval` if that evaluated the newest checkpoint on at least as many episodes as the run
    itself. Otherwise they come from the summary, or from the last evaluation during training.
    """
    steps = run.last("step")
    latencies = run.summary.get("latency_ms") or (None, None)
    return Outcome(
        run=run,
        steps=None if steps is None else int(steps),
        seconds=run.last("time/seconds"),
        train_return=_return(run, "train"),
        test_return=_return(run, "test"),
        training_return=run.last("charts/episodic_return"),
        sparsity=run.last("pruning/sparsity"),
        channel_sparsity=run.last("pruning/channel_sparsity"),
        param_sparsity=run.last("pruning/param_sparsity"),
        params=run.last("pruning/params"),
        macs=run.last("pruning/macs"),
        latency_ms=latencies[1],
        dense_latency_ms=latencies[0],
        largest_kl=run.largest("pruning/kl"),
        largest_action_change=run.largest("pruning/action_change"),
        largest_value_error=run.largest("pruning/value_error"),
    )


def _return(run: RunRecord, levels: str) -> float | None:
    evaluated = _evaluated(run, levels)
    if evaluated is not None:
        return evaluated
    final = run.summary.get(f"{levels}_return")
    return run.last(f"eval/{levels}_return") if final is None else float(final)


def _evaluated(run: RunRecord, levels: str) -> float | None:
    """The mean return of `gsprune eval`, if it used the newest checkpoint and at least the run's number of episodes."""
    evaluation = run.evaluation
    track = evaluation.get("tracks", {}).get(levels)
    if track is None or evaluation["step"] != run.last("step"):
        return None
    episodes = evaluation["num_envs"] * evaluation["episodes_per_env"]
    own = run.config.get("eval_episodes", 0) if run.finished else 0
    return float(track["mean"]) if episodes >= own else None
