"""What the ranks do in the tests of `gsprune.prune_step(process_group=)`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

import gsprune
from gsprune.distributed.consensus import consensus_of
from gsprune.importance.activation import Activation

Weights = dict[str, Tensor]


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))


def batch() -> Tensor:
    return torch.randn(64, 8, generator=torch.Generator().manual_seed(7))


def backward(model: nn.Module, x: Tensor) -> None:
    (model(x).squeeze(1) - x.square().sum(1)).square().mean().backward()


def weights(model: nn.Module) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def criterion(importance: str, x: Tensor) -> Any:
    return gsprune.Importance(Activation(batches=[x])) if importance == "activation" else importance


def prune_on_own_half(rank: int, importance: str) -> Weights:
    """Each rank has seen its half of the batch alone."""
    model, x = network(), batch().chunk(2)[rank]
    backward(model, x)
    gsprune.prune_step(model, 0.5, importance=criterion(importance, x), process_group=dist.group.WORLD)
    return weights(model)


def compensate(calibration: Tensor, **options: Any) -> Weights:
    """The weights after one compensated step in float64."""
    model = network().double()
    gsprune.prune_step(model, 0.5, compensate="linear", calibration=calibration.double(), **options)
    return weights(model)


def compensate_on_own_half(rank: int) -> Weights:
    """Each rank calibrates on its half of the batch alone."""
    return compensate(batch().chunk(2)[rank], process_group=dist.group.WORLD)


def score_on_own_half(rank: int) -> Weights:
    """Each rank scores and calibrates on its half of the batch alone."""
    return compensate(batch().chunk(2)[rank], importance="reconstruction", process_group=dist.group.WORLD)


def rehearse_on_own_half(rank: int) -> tuple[float, Weights]:
    """The predicted change of the outputs, and the weights after the dry run."""
    model, x, group = network(), batch().chunk(2)[rank], dist.group.WORLD
    report = gsprune.prune_step(model, 0.5, compensate="linear", calibration=x, dry_run=True, process_group=group)
    assert report.output_change is not None
    return report.output_change.compensated, weights(model)


def train_with_ddp(rank: int) -> tuple[list[Weights], list[int]]:
    """The weights after every step of a loop that prunes and wraps again, and the widths at its end."""
    model = network(seed=rank)  # DDP gives all ranks those of the first
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    pruner = gsprune.Pruner(
        model, gsprune.schedules.Linear(final=0.5), optimizer=optimizer, importance="taylor",
        process_group=dist.group.WORLD,
    )  # fmt: skip
    wrapped = DistributedDataParallel(model)
    seen, widths = [], []
    for step in range(6):
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(10 * step + rank))
        optimizer.zero_grad()
        backward(wrapped, x)
        optimizer.step()
        report = pruner.step((step + 1) / 6)
        if report.changed:
            wrapped = DistributedDataParallel(model)
        widths = [group.after for group in report.groups]
        seen.append(weights(model))
    return seen, widths


def failure(rank: int, kind: str) -> tuple[str, str, bool]:
    """Error, its text, and whether everything is as before."""
    model = network(seed=rank if kind == "weights" else 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    backward(model, batch())
    optimizer.step()
    options: dict[str, Any] = {"process_group": dist.group.WORLD, "optimizer": optimizer}
    sparsity = 0.5
    if kind == "sparsity" and rank == 1:
        sparsity = 0.25
    if kind == "ignore" and rank == 1:
        options["ignore"] = ("no such layer",)
    if kind == "state" and rank == 1:  # fails when the others have chosen and rewritten already
        first = next(model.parameters())
        optimizer.state[first]["odd"] = torch.zeros(5, 7)
    if kind == "nan" and rank == 1:
        options["importance"] = "taylor"
        next(model.parameters()).grad.fill_(float("nan"))  # type: ignore[union-attr]
    if kind == "nan" and rank == 0:
        options["importance"] = "taylor"
    before = weights(model)
    try:
        gsprune.prune_step(model, sparsity, **options)
    except (gsprune.GspruneError, ValueError, TypeError) as error:
        after = weights(model)
        same = before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
        return type(error).__name__, str(error), same
    return "", "", False


def step_without_group(rank: int) -> bool:
    """A step that a rank takes alone asks nothing of the others."""
    if rank == 0:
        gsprune.prune_step(network(), 0.5)
    return True


def measure(rank: int) -> float:
    """What each rank would measure differently is the first one's."""
    with consensus_of(dist.group.WORLD, network()) as consensus:
        assert consensus is not None
        return consensus.from_first("the time", lambda: 10.0 + rank)
