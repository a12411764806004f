"""The networks that all benches share, with gradients and the two moments of Adam, and what a small cut keeps."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import NETWORKS, with_moments
from torch import Tensor, nn

from gsprune import _core
from gsprune.backends import Backend, CppBackend, Pattern, get_backend

KEPT = 0.95  # of every group, per step


def trained(name: str) -> tuple[nn.Module, Tensor, torch.optim.Optimizer]:
    """A network of `NETWORKS` with gradients and moments, and its example."""
    return with_moments(NETWORKS[name], torch.device("cpu"))


def after_a_step(tensors: list[Tensor]) -> list[Tensor]:
    """Copies where a step leaves its tensors, in blocks of the core: a dense network's may lie on small pages."""
    return CppBackend().slice(tensors, [()], [0] * len(tensors))


def four_tensors(name: str) -> tuple[list[Tensor], list[Tensor], list[Pattern], list[int]]:
    """Weights; then weights, gradients and both moments as a step leaves them, patterns that keep 95 % of every group's
    axes, and the pattern of each."""
    model, _, optimizer = trained(name)
    generator = np.random.default_rng(0)
    keeps: dict[int, np.ndarray] = {}

    def keep(size: int) -> np.ndarray:
        if size not in keeps:
            keeps[size] = np.sort(generator.choice(size, max(1, int(KEPT * size)), replace=False)).astype(np.int64)
        return keeps[size]

    weights = list(model.parameters())
    patterns = [tuple((axis, keep(p.shape[axis])) for axis in range(min(2, p.ndim))) for p in weights]
    states = [optimizer.state[p] for p in weights]
    tensors = [p.detach() for p in weights] + [p.grad for p in weights]
    tensors += [s["exp_avg"] for s in states] + [s["exp_avg_sq"] for s in states]
    return weights, after_a_step(tensors), patterns, list(range(len(weights))) * 4


def extra_info(name: str) -> dict[str, object]:
    """What a saved result must say about where it comes from."""
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return {
        "network": name,
        "device": platform.processor() or platform.machine(),
        "last_level_cache": _core.machine.last_level_cache_bytes(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": head.stdout.strip() or "unknown",
    }


def gpu_backend() -> Backend:
    """The Triton provider; skips where there is no GPU. `scripts/gpu_check.py` times it where there is one."""
    if not torch.cuda.is_available():
        pytest.skip("triton: no CUDA device")
    return get_backend("triton", torch.device("cuda"))


def matrices(tensors: list[Tensor]) -> Iterator[Tensor]:
    """Tensors that are scored: those with two axes or more."""
    return (tensor for tensor in tensors if tensor.ndim > 1)
