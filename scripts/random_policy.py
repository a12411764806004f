"""The return of the random policy, with a bootstrap bound that a trained agent has to beat.

    python scripts/random_policy.py starpilot --episodes 1000

Plays a fixed number of episodes per environment on the training levels, actions drawn uniformly, and prints the mean
return with the upper end of its one-sided bootstrap interval.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from gsprune.rl.envs.procgen import GAMES, NUM_ACTIONS, EnvConfig, ProcgenVectorEnv
from gsprune.rl.envs.provider import EnvironmentRequest
from gsprune.rl.evaluation.episodes import evaluate

NUM_ENVS = 50
RESAMPLES = 10_000


def random_returns(game: str, episodes: int, seed: int) -> np.ndarray:
    """Returns of the random policy on the easy training levels, (episodes,) float64."""
    rng = np.random.default_rng(seed)
    envs = ProcgenVectorEnv(EnvConfig.of(EnvironmentRequest(game, min(NUM_ENVS, episodes), seed)))

    def act(frames: Tensor) -> np.ndarray:
        return rng.integers(0, NUM_ACTIONS, len(frames))

    try:
        return evaluate(act, envs, -(-episodes // envs.num_envs)).returns.ravel()
    finally:
        envs.close()


def bootstrap_bound(returns: np.ndarray, sample_size: int, confidence: float, seed: int) -> float:
    """What the mean of `sample_size` episodes of this policy exceeds with a probability of 1 - `confidence` only.

    Args:
        returns: (n,) returns of single episodes.
        sample_size: episodes in the mean that is compared with the bound.
        confidence: e.g. 0.99.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    means = rng.choice(returns, size=(RESAMPLES, sample_size)).mean(axis=1)
    return float(np.quantile(means, confidence))


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line per game."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("games", nargs="*", default=["all"], help="Procgen games; all for the 16")
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    for game in GAMES if args.games == ["all"] else args.games:
        returns = random_returns(game, args.episodes, args.seed)
        of_mean = bootstrap_bound(returns, len(returns), 0.99, args.seed)
        of_hundred = bootstrap_bound(returns, 100, 0.99, args.seed)
        sys.stdout.write(
            f"{game:<10} mean {returns.mean():7.3f}   99 % bound of a mean over {len(returns)} episodes {of_mean:7.3f},"
            f" over 100 episodes {of_hundred:7.3f}\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
