"""Bitwise snapshots of a model, its gradients and an optimizer, to show that nothing changed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def frozen(value: Any) -> Any:
    """A comparable copy: tensors as (shape, strides, dtype, bytes)."""
    if isinstance(value, Tensor):
        contents = (
            value.detach().contiguous().view(torch.uint8) if value.numel() and value.ndim else value.detach().clone()
        )
        return (tuple(value.shape), value.stride(), value.dtype, contents.clone().reshape(-1).tolist())
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [frozen(item) for item in value]
    return value


def snapshot(model: nn.Module, optimizer: Optimizer | None = None) -> dict[str, Any]:
    """Everything that a failed step must leave alone."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "identities": {name: id(tensor) for name, tensor in tensors.items()},
        "tensors": frozen(tensors),
        "grads": frozen({name: tensor.grad for name, tensor in tensors.items()}),
        "requires_grad": {name: tensor.requires_grad for name, tensor in tensors.items()},
        "attributes": {
            name: {key: value for key, value in vars(module).items() if isinstance(value, int | float | str | tuple)}
            for name, module in model.named_modules()
        },
        "state": "_gsprune_session" in vars(model),
        "optimizer": None
        if optimizer is None
        else [frozen(dict(optimizer.state[p])) for group in optimizer.param_groups for p in group["params"]],
        "rng": torch.get_rng_state().tolist(),
    }
