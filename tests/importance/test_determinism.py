"""The compiled core and plain torch choose the same units, also where many are equally important."""

from __future__ import annotations

import numpy as np
import torch
from by_group import group_scores, select
from hand_made import small_graph, small_net, tensors_of
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gsprune.backends import get_backend
from gsprune.importance import Importance
from gsprune.importance.normalizers import NORMALIZERS
from gsprune.importance.statistics import REDUCTIONS

CPU = torch.device("cpu")


@given(
    seed=st.integers(0, 10_000),
    criterion=st.sampled_from(["l1", "l2", "lamp", "taylor", "hessian"]),
    reduction=st.sampled_from(sorted(REDUCTIONS)),
    normalizer=st.sampled_from(sorted(NORMALIZERS)),
    scope=st.sampled_from(["local", "global"]),
)
def test_orthogonal_networks_lose_the_same_units_with_either_backend(
    seed: int, criterion: str, reduction: str, normalizer: str, scope: str
) -> None:
    net = small_net()
    torch.manual_seed(seed)
    for index in (0, 3, 6):
        nn.init.orthogonal_(net[index].weight)
        net[index].weight.grad = torch.ones_like(net[index].weight)
    graph, tensors = small_graph(net), tensors_of(net)
    importance = Importance(criterion, reduction, normalizer)
    removed = []
    for name in ("cpp", "torch"):
        backend = get_backend(name, CPU)  # type: ignore[arg-type]
        scores = group_scores(importance, graph, tensors, backend)
        removed.append(select(graph, scores, {}, 0.5, scope=scope, backend=backend))  # type: ignore[arg-type]
    assert removed[0].keys() == removed[1].keys()
    assert all(np.array_equal(removed[0][group], units) for group, units in removed[1].items())


def test_equally_important_units_go_from_the_end() -> None:
    net = small_net()
    with torch.no_grad():
        for index in (0, 3, 6):
            net[index].weight.fill_(0.1)
    graph, tensors = small_graph(net), tensors_of(net)
    for normalizer in NORMALIZERS:
        for name in ("cpp", "torch"):
            backend = get_backend(name, CPU)  # type: ignore[arg-type]
            scores = group_scores(Importance("l2", normalizer=normalizer), graph, tensors, backend)
            removed = select(graph, scores, {}, 0.5, backend=backend)
            assert {group: units.tolist() for group, units in removed.items()} == {"0": [3, 4, 5], "3": [2, 3]}
