"""What a study costs: days on so many workers, from the steps/s that one worker makes.

    python scripts/study_cost.py --steps-per-second 2000 --workers 8

The formula is ``games * methods * seeds * steps / (steps per second * workers)``; evaluations come on top
(`--overhead`). Take the steps/s from ``time/sps`` in the metrics of a short run of each method on the machine in
question: pruned networks get faster as they shrink, so the mean over a whole run is what counts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

_DAY = 86_400


def worker_days(trials: int, steps: float, steps_per_second: float, overhead: float) -> float:
    """Days that one worker needs for all trials.

    Args:
        trials: runs of the study.
        steps: environment steps of each.
        steps_per_second: of one worker.
        overhead: share of the time that comes on top, for evaluations.
    """
    return trials * steps / steps_per_second * (1 + overhead) / _DAY


def main(argv: Sequence[str] | None = None) -> None:
    """Print the days for some numbers of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps-per-second", type=float, required=True, help="of one worker, a GPU or some CPU cores")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64], help="how many work at a time")
    parser.add_argument("--games", type=int, default=16)
    parser.add_argument("--methods", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=float, default=25e6, help="environment steps of each run")
    parser.add_argument("--overhead", type=float, default=0.0, help="share of the time for evaluations, like 0.1")
    args = parser.parse_args(argv)
    trials = args.games * args.methods * args.seeds
    alone = worker_days(trials, args.steps, args.steps_per_second, args.overhead)
    print(f"{trials} trials of {args.steps:,.0f} steps, {trials * args.steps:,.0f} in all; a trial takes", end=" ")
    print(f"{alone / trials * 24:,.1f} hours at {args.steps_per_second:,.0f} steps/s")
    for workers in args.workers:
        print(f"{workers:>6} workers: {alone / workers:>12,.1f} days")


if __name__ == "__main__":
    main()
