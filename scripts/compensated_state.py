"""What a compensated step should do with Adam's first moment and with followers, measured on scikit-learn's digits.

    pip install scikit-learn
    python scripts/compensated_state.py --seeds 10

A network of three linear layers is trained by Adam. After 300 updates one step removes 50 or 75 % of the channels, and
the training goes on.

Moments: the first moment of every compensated weight is sliced (as gsprune does), multiplied by the map A as the weight
is, or set to zero. The figures are means of the loss on the whole training set over some updates after the step.

Followers: an average of the weights and a copy that is 100 updates old get the model's map, a map fitted on their own
inputs, or none. The figures are relative changes of the follower's outputs on the test set.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import gsprune
from gsprune.compensation.fitting import ConsumerFit
from gsprune.compensation.targets import Target

UPDATES_BEFORE, BATCH, AGE, NUM_TRAINING = 300, 64, 100, 1200
SPANS = {"1 to 5": (0, 5), "6 to 20": (5, 20), "21 to 100": (20, 100)}
DECAYS = (0.99, 0.999)


def digits() -> tuple[Tensor, Tensor]:
    """Pictures and classes, shuffled."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.data))
    return torch.tensor(data.data[order] / 16).float(), torch.tensor(data.target[order])


X, Y = digits()
TRAIN, TEST = slice(0, NUM_TRAINING), slice(NUM_TRAINING, None)


@dataclass
class Training:
    """A network in training, with the modules that follow it."""

    model: nn.Sequential
    optimizer: torch.optim.Adam
    batches: np.random.Generator
    followers: dict[str, nn.Module]

    def update(self) -> None:
        """One update by Adam."""
        indices = torch.from_numpy(self.batches.choice(NUM_TRAINING, BATCH))
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(X[indices]), Y[indices]).backward()
        self.optimizer.step()

    @torch.no_grad()
    def follow(self, update: int) -> None:
        """Bring the followers up to date after an update of that number."""
        for decay in DECAYS:
            for old, new in zip(self.followers[f"average {decay}"].parameters(), self.model.parameters(), strict=True):
                old.lerp_(new, 1 - decay)
        if update == UPDATES_BEFORE - AGE:
            self.followers[f"copy, {AGE} updates old"].load_state_dict(self.model.state_dict())


def trained(seed: int) -> Training:
    """The training right before the step."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    names = [*(f"average {decay}" for decay in DECAYS), f"copy, {AGE} updates old"]
    followers = {name: copy.deepcopy(model) for name in names}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    training = Training(model, optimizer, np.random.default_rng(seed), followers)
    for update in range(UPDATES_BEFORE):
        training.update()
        training.follow(update + 1)
    return training


@contextmanager
def watched_fits() -> Iterator[dict[str, ConsumerFit]]:
    """The fits of a step, by weight."""
    fits: dict[str, ConsumerFit] = {}
    explained = ConsumerFit.explained

    def watched(fit: ConsumerFit) -> float | None:
        fits[fit.consumer.weight] = fit
        return explained(fit)

    with mock.patch.object(ConsumerFit, "explained", watched):
        yield fits


def losses_after(training: Training, sparsity: float, moment: str) -> list[float]:
    """The loss on the training set after each of 100 updates that follow the step."""
    training = copy.deepcopy(training)
    model, optimizer = training.model, training.optimizer
    before = {name: optimizer.state[p]["exp_avg"].clone() for name, p in model.named_parameters()}
    with watched_fits() as fits:
        gsprune.prune_step(
            model, sparsity, optimizer=optimizer, example_inputs=X[:2], compensate="linear", calibration=X[:512]
        )
    parameters = dict(model.named_parameters())
    for name, fit in fits.items():
        average = optimizer.state[parameters[name]]["exp_avg"]
        if moment == "zero":
            average.zero_()
        elif moment == "multiplied":
            change, _ = fit.changes(Target(before[name], average, (), fit.targets[0].outputs))
            average += change
    losses = []
    for _ in range(max(end for _, end in SPANS.values())):
        training.update()
        with torch.no_grad():
            losses.append(float(nn.functional.cross_entropy(model(X[TRAIN]), Y[TRAIN])))
    return losses


def follower_changes(training: Training, sparsity: float, name: str) -> dict[str, float]:
    """Relative change of a follower's outputs by the step, for each way to treat it."""
    dense = training.followers[name]
    own, same, sliced = copy.deepcopy(dense), copy.deepcopy(dense).double(), copy.deepcopy(dense)
    options = {"example_inputs": X[:2], "calibration": X[:512]}
    # A follower of another dtype than the model cannot be fitted by itself.
    compensated = {"followers": [same, own], "compensate": "linear"}
    gsprune.prune_step(copy.deepcopy(training.model), sparsity, **options, **compensated)
    gsprune.prune_step(copy.deepcopy(training.model), sparsity, example_inputs=X[:2], followers=[sliced])
    return {way: change_of(dense, small) for way, small in (("same", same), ("own", own), ("none", sliced))}


@torch.no_grad()
def change_of(dense: nn.Module, small: nn.Module) -> float:
    """Relative change of the outputs on the test set."""
    expected = dense(X[TEST]).double()
    dtype = next(small.parameters()).dtype
    return float((small(X[TEST].to(dtype)) - expected).norm() / expected.norm())


def show(title: str, columns: list[str], rows: dict[str, Callable[[], np.ndarray]]) -> None:
    """Print a table of means and standard errors; a row's function returns (seeds, columns)."""
    print(f"\n| {title} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, values in rows.items():
        table = values()
        errors = table.std(0, ddof=1) / len(table) ** 0.5
        cells = [f"{mean:.4f} ± {error:.4f}" for mean, error in zip(table.mean(0), errors, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5, 0.75])
    args = parser.parse_args()
    trainings = [trained(seed) for seed in range(args.seeds)]
    for sparsity in args.sparsities:
        print(f"\n{sparsity:.0%} of the channels, {args.seeds} seeds, mean ± standard error")

        def losses(moment: str, sparsity: float = sparsity) -> np.ndarray:
            curves = np.array([losses_after(training, sparsity, moment) for training in trainings])
            return np.stack([curves[:, first:last].mean(1) for first, last in SPANS.values()], 1)

        def changes(name: str, sparsity: float = sparsity) -> np.ndarray:
            return np.array([list(follower_changes(training, sparsity, name).values()) for training in trainings])

        moments = ("sliced", "multiplied", "zero")
        show("first moment", [f"updates {span}" for span in SPANS], {m: (lambda m=m: losses(m)) for m in moments})
        names = list(trainings[0].followers)
        show("follower", ["same map", "own map", "no map"], {n: (lambda n=n: changes(n)) for n in names})


if __name__ == "__main__":
    main()
