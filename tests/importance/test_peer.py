"""Scores against Torch-Pruning 1.6.1, where the definitions agree.

They agree on weights of convolutions and linear layers, without norms and biases, with the same reduction; there the L2
criterion is the sum of squares without the root, FPGM measures distances of magnitudes, so it is compared on weights
of one sign, and the Hessian's half is left out. Network slimming is compared on a network with norms. Where a channel
owns several columns of a linear layer (after a flatten) the peer lets the last column alone speak for "max" and "prod",
and takes distances and the joint Taylor term column by column: these are compared on a network that pools instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from by_group import group_scores
from torch import Tensor, nn

import gsprune
from gsprune.backends import get_backend
from gsprune.importance import Importance, Taylor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tp = pytest.importorskip(
        "torch_pruning", reason="torch-pruning is not installed (pip install -c constraints.txt '.[bench]')"
    )
    from torch_pruning.pruner import importance as peer

LAYERS = [nn.modules.conv._ConvNd, nn.Linear]


class Net(nn.Module):
    """A residual stream, an inner convolution, and a pool or a flatten before the linear layers; norms if wanted."""

    def __init__(self, pools: bool, norms: bool) -> None:
        super().__init__()
        self.pools = pools
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(6), nn.BatchNorm2d(8), nn.BatchNorm1d(10)])
        if not norms:
            self.norms = nn.ModuleList([nn.Identity() for _ in range(4)])
        for norm in self.norms:
            for parameter in norm.parameters():
                nn.init.normal_(parameter)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 6, 3, padding=1)
        self.outer = nn.Conv2d(6, 8, 3, padding=1)
        self.hidden = nn.Linear(8 if pools else 8 * 16, 10)
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms[0](self.stem(x))
        inner = torch.relu(self.norms[1](self.inner(torch.relu(x))))
        x = torch.relu(x + self.norms[2](self.outer(inner)))
        x = self.hidden(x.mean((2, 3)) if self.pools else x.flatten(1))
        return self.head(torch.relu(self.norms[3](x)))


X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def trained(pools: bool, norms: bool = False) -> Net:
    torch.manual_seed(0)
    model = Net(pools, norms)
    model(X).square().sum().backward()
    return model


def our_scores(net: Net, importance: Importance) -> dict[str, np.ndarray[Any, Any]]:
    backend = get_backend("auto", torch.device("cpu"))
    return dict(group_scores(importance, gsprune.trace(net, X), dict(net.named_parameters()), backend, model=net))


def peer_scores(net: Net, importance: Any) -> dict[str, np.ndarray[Any, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph().build_dependency(net, example_inputs=X)
        scores = {}
        for name in ("stem", "inner", "hidden"):
            layer = getattr(net, name)
            out = tp.prune_linear_out_channels if isinstance(layer, nn.Linear) else tp.prune_conv_out_channels
            group = graph.get_pruning_group(layer, out, idxs=list(range(layer.weight.shape[0])))
            scores[name] = importance(group).detach().double().numpy()
        return scores


def same(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return values


CASES: list[tuple[str, Importance, Any, Callable[[Any], Any]]] = [
    ("l1", Importance("l1"), peer.GroupMagnitudeImportance(p=1, normalizer=None, target_types=LAYERS), same),
    (
        "l1 reduced by max",
        Importance("l1", "max"),
        peer.GroupMagnitudeImportance(1, "max", None, target_types=LAYERS),
        same,
    ),
    (
        "l1 reduced by prod",
        Importance("l1", "prod"),
        peer.GroupMagnitudeImportance(1, "prod", None, target_types=LAYERS),
        same,
    ),
    (
        "l1 reduced by sum",
        Importance("l1", "sum"),
        peer.GroupMagnitudeImportance(1, "sum", None, target_types=LAYERS),
        same,
    ),
    (
        "l2 first",
        Importance("l2", "first"),
        peer.GroupMagnitudeImportance(2, "first", None, target_types=LAYERS),
        np.square,
    ),
    *(
        (
            f"l2 reduced by {name}",
            Importance("l2", name),
            peer.GroupMagnitudeImportance(2, name, None, target_types=LAYERS),
            np.square,
        )
        for name in ("max", "prod")
    ),
    ("lamp", Importance("lamp"), peer.GroupMagnitudeImportance(2, normalizer="lamp", target_types=LAYERS), same),
    *(
        (
            f"taylor reduced by {name}",
            Importance("taylor", name),
            peer.GroupTaylorImportance(name, None, target_types=LAYERS),
            same,
        )
        for name in ("sum", "max", "prod", "first")
    ),
    ("taylor", Importance("taylor"), peer.GroupTaylorImportance(normalizer=None, target_types=LAYERS), same),
    (
        "joint taylor",
        Importance(Taylor(joint=True)),
        peer.GroupTaylorImportance(normalizer=None, multivariable=True, target_types=LAYERS),
        same,
    ),
    *(
        (
            f"l1 {name}",
            Importance("l1", normalizer=name),
            peer.GroupMagnitudeImportance(1, normalizer=their_name, target_types=LAYERS),
            same,
        )
        for name, their_name in (
            ("sum", "sum"),
            ("mean", "mean"),
            ("max", "max"),
            ("standardization", "standarization"),
            ("gaussian", "gaussian"),
        )
    ),
]


POOLS_ALONE = {"joint taylor"} | {
    f"{criterion} reduced by {name}" for criterion in ("l1", "l2", "taylor") for name in ("max", "prod")
}


PAIRS = [(case, pools) for case in CASES for pools in (True, False) if pools or case[0] not in POOLS_ALONE]


@pytest.mark.parametrize(
    ("case", "pools"), PAIRS, ids=[f"{case[0]}, {'pool' if pools else 'flatten'}" for case, pools in PAIRS]
)
def test_scores_agree(case: tuple[str, Importance, Any, Callable[[Any], Any]], pools: bool) -> None:
    _, ours, theirs, converted = case
    net = trained(pools)
    got, expected = our_scores(net, ours), peer_scores(net, theirs)
    assert set(got) == set(expected)
    for group, scores in got.items():
        # The peer sums in float32, which differences of scores make visible, and adds 1e-8 to some divisors.
        assert converted(scores) == pytest.approx(expected[group], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum", "max", "first"])
def test_fpgm_agrees_on_weights_of_one_sign(reduction: str) -> None:
    net = trained(pools=True)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.abs_()
    expected = peer_scores(net, peer.FPGMImportance(1, reduction, None))
    for group, scores in our_scores(net, Importance("fpgm", reduction)).items():
        assert scores == pytest.approx(expected[group], rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum", "max", "first"])
def test_hessian_agrees_but_for_the_half(reduction: str) -> None:
    net = trained(pools=True)
    ours = our_scores(net, Importance("hessian", reduction))
    theirs = peer.GroupHessianImportance(reduction, None, target_types=LAYERS)
    theirs.accumulate_grad(net)  # squares the gradients of one batch; writes them into .grad when it scores
    expected = peer_scores(net, theirs)
    for group, scores in ours.items():
        assert 2 * scores == pytest.approx(expected[group], rel=1e-5)


@pytest.mark.parametrize("normalizer", ["none", "mean"])
def test_network_slimming_agrees(normalizer: str) -> None:
    net = trained(pools=True, norms=True)
    expected = peer_scores(net, peer.BNScaleImportance(normalizer=None if normalizer == "none" else normalizer))
    ours = our_scores(net, Importance("bn_scale", normalizer=normalizer))
    assert set(ours) == set(expected)
    for group, scores in ours.items():
        assert scores == pytest.approx(expected[group], rel=1e-5)
