"""The change of networks right after one pruning step, with and without compensation (docs/results/compensation.md).

    python scripts/compensation_table.py digits --csv docs/results/compensation-digits.csv
    python scripts/compensation_table.py agents runs/starpilot-* --csv docs/results/compensation-agents.csv

`digits` trains a ResNet, a ConvNeXt and a ViT on scikit-learn's digits; Torch-Pruning's result stands beside gsprune's
(needs scikit-learn and the extra `bench`). `agents` reads run folders of ``gsprune train``. Both append to the csv and
skip rows that it has. `compensation_results.py` makes the page's tables and pictures of both files.
"""

from __future__ import annotations

import argparse
import copy
import csv
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from digits_networks import NETWORKS, Digits, trained_network
from torch import Tensor, nn

import gsprune
from gsprune.importance import CRITERIA
from gsprune.rl.envs.provider import EnvironmentRequest
from gsprune.rl.envs.registry import make_environments
from gsprune.rl.trained import TrainedAgent, load_agent

SPARSITIES = (0.1, 0.3, 0.5, 0.8, 0.9)
MODES = ("none", "bias", "linear")
CRITERION_NAMES = ("l1", "taylor", "reconstruction", "random")
SEEDS = (0, 1)
NUM_CALIBRATION = 512
NUM_ENVS = 8
KEYS = ("network", "seed", "sparsity", "criterion", "compensate")
MEASURES = ("change", "error", "parameters")
"""change: KL of the outputs' distribution, or for DQN the share of changed greedy actions. error: loss of accuracy, or
root mean square error of the values over their standard deviation."""

Measure = Callable[[nn.Module], tuple[float, float]]


class Table:
    """Rows in a csv file, which grows with every row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="") as file:
                self.rows = list(csv.DictReader(file))

    def has(self, *key: object) -> bool:
        """True if the file has a row of this key."""
        return any([row[name] for name in KEYS] == [str(value) for value in key] for row in self.rows)

    def add(self, *values: object) -> None:
        """Append a row: the key, then the measures."""
        texts = [f"{value:.5g}" if isinstance(value, float) else str(value) for value in values]
        row = dict(zip(KEYS + MEASURES, texts, strict=True))
        self.rows.append(row)
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row, lineterminator="\n")
            if len(self.rows) == 1:
                writer.writeheader()
            writer.writerow(row)


def measure_steps(
    table: Table,
    name: str,
    seed: int,
    model: nn.Module,
    calibration: Tensor,
    loss: Callable[[], Tensor],
    measure: Measure,
) -> None:
    """Prune copies of a network once, by all criteria and modes, to all sparsities.

    Args:
        table: takes the rows.
        name: of the network.
        seed: of its training.
        model: the dense network.
        calibration: inputs.
        loss: of the dense network, for criteria that read gradients.
        measure: pruned network -> (change, error).
    """
    model.zero_grad()
    loss().backward()
    for sparsity in SPARSITIES:
        for criterion in CRITERION_NAMES:
            for mode in MODES if criterion in CRITERIA else ():
                if table.has(name, seed, sparsity, criterion, mode):
                    continue
                small = copy.deepcopy(model)
                for parameter, dense in zip(small.parameters(), model.parameters(), strict=True):
                    parameter.grad = None if dense.grad is None else dense.grad.clone()
                torch.manual_seed(seed)
                gsprune.prune_step(
                    small, sparsity, example_inputs=calibration[:2], importance=criterion, compensate=mode,
                    calibration=calibration,
                )  # fmt: skip
                table.add(name, seed, sparsity, criterion, mode, *measure(small), num_parameters(small))


def num_parameters(model: nn.Module) -> int:
    """The number of weights and biases."""
    return sum(parameter.numel() for parameter in model.parameters())


# -- digits -----------------------------------------------------------------------------------------------------------


def prune_by_torch_pruning(model: nn.Module, example: Tensor, sparsity: float, norm: int) -> nn.Module:
    """A copy pruned by Torch-Pruning's one-shot magnitude pruning."""
    import torch_pruning

    small = copy.deepcopy(model)
    torch_pruning.pruner.BasePruner(
        small,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(p=norm),
        pruning_ratio=sparsity,
        ignored_layers=[m for m in small.modules() if isinstance(m, nn.Linear) and m.out_features == 10],
        num_heads={m.qkv: m.num_heads for m in small.modules() if hasattr(m, "num_heads")},
    ).step()
    return small


@torch.no_grad()
def accuracy_of(model: nn.Module, digits: Digits) -> float:
    """The share of the test pictures that a network classifies correctly."""
    return (model(digits.test_inputs).argmax(1) == digits.test_labels).double().mean().item()


def run_digits(table: Table) -> None:
    """Fill the table with the networks on digits."""
    digits = Digits.load()
    calibration, labels = digits.inputs[:NUM_CALIBRATION], digits.labels[:NUM_CALIBRATION]
    for seed in SEEDS:
        for name in NETWORKS:
            if table.has(name, seed, SPARSITIES[-1], "random", MODES[-1]):
                continue
            model = trained_network(name, digits, seed)
            accuracy = accuracy_of(model, digits)
            sys.stderr.write(f"{name}, seed {seed}: accuracy {accuracy:.3f}, {num_parameters(model):,} parameters\n")
            with torch.no_grad():
                before = model(digits.test_inputs)

            def measure(small: nn.Module, before: Tensor = before, accuracy: float = accuracy) -> tuple[float, float]:
                with torch.no_grad():
                    change = divergence(before, small(digits.test_inputs))
                return change, accuracy - accuracy_of(small, digits)

            for sparsity in SPARSITIES:
                for norm in (1, 2):
                    if not table.has(name, seed, sparsity, f"l{norm}, Torch-Pruning", "none"):
                        small = prune_by_torch_pruning(model, calibration[:2], sparsity, norm)
                        row = (*measure(small), num_parameters(small))
                        table.add(name, seed, sparsity, f"l{norm}, Torch-Pruning", "none", *row)
            loss = lambda model=model: F.cross_entropy(model(calibration), labels)  # noqa: E731
            measure_steps(table, name, seed, model, calibration, loss, measure)


# -- agents -----------------------------------------------------------------------------------------------------------


def frames_of(agent: TrainedAgent, count: int, seed: int) -> Iterator[Tensor]:
    """Frames of the agent's play on training levels, `NUM_ENVS` at a time."""
    policy = agent.policy(torch.Generator().manual_seed(seed))
    request = EnvironmentRequest.of_run(agent.config, num_envs=NUM_ENVS, seed=seed, is_training=False)
    with closing(make_environments(request)) as environments:
        observations, _ = environments.reset()
        for _ in range(count // NUM_ENVS):
            yield torch.from_numpy(np.array(observations))
            observations, *_ = environments.step(policy(torch.from_numpy(observations)))


@torch.no_grad()
def outputs_of(network: nn.Module, frames: Tensor) -> tuple[Tensor, Tensor]:
    """(policy, values) in batches: logits and values of PPO, action values of DQN twice."""
    parts = [network(batch) for batch in frames.split(256)]
    if isinstance(parts[0], tuple):
        policies, values = zip(*parts, strict=True)
        return torch.cat(policies), torch.cat(values)
    return torch.cat(parts), torch.cat(parts)


def divergence(before: Tensor, after: Tensor) -> float:
    """Mean KL divergence of categorical distributions, from logits."""
    old, new = before.double().log_softmax(1), after.double().log_softmax(1)
    return (old.exp() * (old - new)).sum(1).mean().item()


def run_agents(table: Table, runs: Sequence[Path], num_frames: int) -> None:
    """Fill the table with agents: `num_frames` of 2,000 frames fit, and 2,000 frames of other episodes test."""
    for run in runs:
        agent = load_agent(run)
        config = agent.config
        name = f"{config['algorithm']} {config['encoder']} x{config['width']:g} {config['env_id']} {agent.step}"
        seed = config["seed"]
        if table.has(name, seed, SPARSITIES[-1], "random", MODES[-1]):
            continue
        fitted, tested = (torch.cat(list(frames_of(agent, 2000, play))) for play in (1, 2))
        calibration = fitted[torch.linspace(0, len(fitted) - 1, num_frames).long()]
        before = outputs_of(agent.network, tested)
        samples_actions = agent.acts == "sampled"
        sys.stderr.write(f"{name}, seed {seed}: {agent.step:,} steps, {num_parameters(agent.network):,} parameters\n")

        def measure(
            small: nn.Module,
            before: tuple[Tensor, Tensor] = before,
            tested: Tensor = tested,
            samples_actions: bool = samples_actions,
        ) -> tuple[float, float]:
            (old_policy, old), (policy, new) = before, outputs_of(small, tested)
            changed = (old_policy.argmax(1) != policy.argmax(1)).double().mean().item()
            change = divergence(old_policy, policy) if samples_actions else changed
            return change, math.sqrt((new - old).square().mean()) / old.std().item()

        def loss(network: nn.Module = agent.network, calibration: Tensor = calibration) -> Tensor:
            """Negative log probability of sampled actions and values; for DQN the largest action values."""
            outputs = network(calibration)
            if not isinstance(outputs, tuple):
                return outputs.amax(1).mean()
            distribution = torch.distributions.Categorical(logits=outputs[0])
            return outputs[1].mean() - distribution.log_prob(distribution.sample()).mean()

        measure_steps(table, name, seed, agent.network, calibration, loss, measure)


def main(argv: Sequence[str] | None = None) -> None:
    """Fill the csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("agents", "digits"))
    parser.add_argument("runs", nargs="*", type=Path, help="run folders, for agents")
    parser.add_argument("--csv", type=Path, required=True, help="file that rows are appended to")
    parser.add_argument("--frames", type=int, default=NUM_CALIBRATION, help="frames to fit, for agents")
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    table = Table(args.csv)
    if args.mode == "digits":
        run_digits(table)
    else:
        run_agents(table, args.runs, args.frames)


if __name__ == "__main__":
    main()
