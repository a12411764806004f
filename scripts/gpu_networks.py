"""The networks and lists of shapes that gpu_check.py runs on."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from gsprune.networks import ActorCritic, build_encoder

__all__ = ["networks", "resnet50_shapes", "shape_lists", "trained"]

_STAGES = ((64, 3, 1), (128, 4, 4), (256, 6, 8), (512, 3, 16))  # ResNet-50: width, blocks, (inputs of the first) / 64


def resnet50_shapes() -> list[tuple[int, ...]]:
    """Shapes of all weights and norms of a ResNet-50, 25.5 million elements."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,)]
    for width, blocks, scale in _STAGES:
        for block in range(blocks):
            inputs = 64 * scale if block == 0 else 4 * width
            shapes += [(width, inputs, 1, 1), (width,), (width, width, 3, 3), (width,), (4 * width, width, 1, 1)]
            shapes += [(4 * width,)] + ([(4 * width, inputs, 1, 1)] if block == 0 else [])
    return [*shapes, (1000, 2048), (1000,)]


def _impala(width: int) -> nn.Module:
    """The agent of the paper at that width, with the 15 actions of Procgen."""
    return ActorCritic(build_encoder("impala", width), 15)


def _tiny() -> nn.Module:
    """A network for the dry run."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(96, 5))


def shape_lists(dry_run: bool) -> dict[str, list[tuple[int, ...]]]:
    """Names and shapes of the weights that scoring and slicing are timed on."""
    if dry_run:
        return {"tiny": [tuple(parameter.shape) for parameter in _tiny().parameters()]}
    lists = {f"Impala tau={tau}": [tuple(p.shape) for p in _impala(tau).parameters()] for tau in (1, 2, 4, 8)}
    return {**lists, "ResNet-50 list": resnet50_shapes()}


def networks(dry_run: bool) -> Iterator[tuple[str, Callable[[], nn.Module], Tensor]]:
    """Names, makers and example inputs of the networks that whole steps are timed on."""
    if dry_run:
        yield "tiny", _tiny, torch.zeros(1, 3, 8, 8)
        return
    for tau in (1, 2, 4, 8):
        yield f"Impala tau={tau}", lambda tau=tau: _impala(tau), torch.zeros(1, 3, 64, 64)
    if importlib.util.find_spec("torchvision"):
        import torchvision

        yield "ResNet-50", torchvision.models.resnet50, torch.zeros(1, 3, 224, 224)


def trained(make: Callable[[], nn.Module], device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The network with gradients and Adam's moments, as after an optimizer step."""
    torch.manual_seed(0)
    model = make().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return model, optimizer
