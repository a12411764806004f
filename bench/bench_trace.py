"""Finding the groups of a network, once per model, beside Torch-Pruning's dependency graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
from cases import extra_info
from networks import NETWORKS
from torch import Tensor, nn

import gsprune


def _by_gsprune(model: nn.Module, example: Tensor) -> int:
    return len(gsprune.trace(model, example).groups)


def _by_torch_pruning(model: nn.Module, example: Tensor) -> int:
    pruning = pytest.importorskip(
        "torch_pruning", reason="Torch-Pruning is not installed: pip install torch-pruning==1.6.1"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = pruning.DependencyGraph().build_dependency(model, example)
        return sum(1 for _ in graph.get_all_groups())


PROVIDERS: dict[str, Callable[[nn.Module, Tensor], int]] = {"gsprune": _by_gsprune, "Torch-Pruning": _by_torch_pruning}
# Torch-Pruning counts the output layers, which can be asked for but are not pruned.
LEAST_GROUPS = {"impala": 10, "resnet": 36}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_trace(benchmark, network: str, provider: str) -> None:
    benchmark.group = f"trace {network}"
    model, example = NETWORKS[network]()
    assert PROVIDERS[provider](model, example) >= LEAST_GROUPS[network.partition("-")[0]]
    benchmark.extra_info.update(extra_info(network), provider=provider)
    benchmark.pedantic(PROVIDERS[provider], (model, example), rounds=3, warmup_rounds=0)
