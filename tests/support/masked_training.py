"""Training a dense network with channels held at zero, which a pruned one must follow step by step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gsprune.rewrite.masking import masked


def mask_like(net: nn.Module, removed: dict[str, dict[int, Tensor]]) -> None:
    """Zero the removed positions of a dense net."""
    with torch.no_grad():
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            if name in removed:
                tensor.copy_(masked(tensor, {axis: idx.numpy() for axis, idx in removed[name].items()}))


def mask_moments(net: nn.Module, optimizer: torch.optim.Optimizer, removed: dict[str, dict[int, Tensor]]) -> None:
    """Zero the removed positions of every state tensor that has its parameter's shape."""
    names = {id(p): name for name, p in net.named_parameters()}
    for parameter, state in optimizer.state.items():
        axes = {axis: idx.numpy() for axis, idx in removed.get(names[id(parameter)], {}).items()}
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and axes:
                state[key] = masked(value, axes)


def mask_gradients(net: nn.Module, removed: dict[str, dict[int, Tensor]]) -> None:
    """Zero the removed positions of the gradients."""
    for name, parameter in net.named_parameters():
        if name in removed and parameter.grad is not None:
            parameter.grad = masked(parameter.grad, {axis: idx.numpy() for axis, idx in removed[name].items()})


def kept_part(tensor: Tensor, axes: dict[int, Tensor]) -> Tensor:
    for axis, positions in axes.items():
        keep = np.setdiff1d(np.arange(tensor.shape[axis]), positions.numpy())
        tensor = tensor.index_select(axis, torch.from_numpy(keep))
    return tensor


def assert_trained_alike(
    small: tuple[nn.Module, Optimizer],
    dense: tuple[nn.Module, Optimizer],
    removed: dict[str, dict[int, Tensor]],
    tolerance: float = 1e-9,
) -> None:
    """Kept weights and the state of one optimizer are those of the dense network, bit for bit at tolerance 0."""
    (small_net, small_optimizer), (dense_net, dense_optimizer) = small, dense
    parameters = dict(small_net.named_parameters())
    for name, parameter in dense_net.named_parameters():
        axes = removed.get(name, {})
        torch.testing.assert_close(parameters[name], kept_part(parameter, axes), rtol=tolerance, atol=tolerance)
        ours = small_optimizer.state.get(parameters[name], {})
        theirs = dense_optimizer.state.get(parameter, {})
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            if isinstance(value, Tensor):
                expected = kept_part(value, axes) if value.shape == parameter.shape else value
                torch.testing.assert_close(ours[key], expected, rtol=tolerance, atol=tolerance)
            else:
                assert ours[key] == value
