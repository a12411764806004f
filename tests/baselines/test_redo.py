import numpy as np
import pytest
import torch
from torch import nn

from gsprune.baselines.redo import ReDo
from gsprune.tracing.graph import Graph, Group, Member

WIDTH = 6


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, WIDTH, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(WIDTH * 4, 3), nn.ReLU(), nn.Linear(3, 2)
    )
    with torch.no_grad():
        for layer in (model[0], model[3]):
            layer.weight.abs_()
            layer.bias.fill_(0.1)
    return model


def graph():
    conv = Group(
        "0",
        WIDTH,
        1,
        (
            Member("0.weight", 0, np.arange(WIDTH), "out"),
            Member("0.bias", 0, np.arange(WIDTH), "out"),
            Member("3.weight", 1, np.repeat(np.arange(WIDTH), 4), "in"),
        ),
        "conv",
    )
    linear = Group(
        "3",
        3,
        1,
        (
            Member("3.weight", 0, np.arange(3), "out"),
            Member("3.bias", 0, np.arange(3), "out"),
            Member("5.weight", 1, np.arange(3), "in"),
        ),
        "linear",
    )
    return Graph((conv, linear), (), {}, {}, (), (), "given", ())


FRAMES = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(1))


def silence(layer, unit):
    """Make a unit's output negative on every input."""
    with torch.no_grad():
        layer.weight[unit] = 0
        layer.bias[unit] = -1


def test_units_at_or_below_the_share_of_the_mean_are_dormant():
    model = network()
    silence(model[0], 4)
    with torch.no_grad():
        model[0].weight[2] *= 1e-3
        model[0].bias[2] = 0
    assert ReDo(model, graph()).dormant(FRAMES)["0"].tolist() == [2, 4]
    assert ReDo(model, graph(), threshold=0.0).dormant(FRAMES)["0"].tolist() == [4]
    hidden = model[:2](FRAMES).detach().mean((0, 2, 3))
    share = float(hidden[2] / hidden.mean())
    assert 2 in ReDo(model, graph(), threshold=share * 1.001).dormant(FRAMES)["0"]
    assert 2 not in ReDo(model, graph(), threshold=share * 0.999).dormant(FRAMES)["0"]


def test_recycling_draws_incoming_weights_anew_zeroes_outgoing_ones_and_clears_moments():
    model = network()
    silence(model[0], 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    model(FRAMES).sum().backward()
    optimizer.step()
    for state in optimizer.state.values():
        state["exp_avg"].fill_(1.0)
        state["exp_avg_sq"].fill_(1.0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    report = ReDo(model, graph(), [optimizer]).step(0.0, FRAMES)
    assert (report.changed, report.units, report.sparsity) == (True, 1, 0.0)
    columns = slice(16, 20)
    bound = 1 / 3
    assert model[0].weight[4].abs().max() <= bound
    assert (model[0].weight[4] != before["0.weight"][4]).all()
    assert model[0].bias[4].abs() <= bound
    assert (model[3].weight[:, columns] == 0).all()
    for axis, name, positions in ((0, "0.weight", [4]), (0, "0.bias", [4]), (1, "3.weight", [16, 17, 18, 19])):
        for key in ("exp_avg", "exp_avg_sq"):
            moment = optimizer.state[model.get_parameter(name)][key]
            gone = torch.zeros(moment.shape[axis], dtype=torch.bool)
            gone[positions] = True
            assert (moment.movedim(axis, 0)[gone] == 0).all()
            assert (moment.movedim(axis, 0)[~gone] == 1).all()
    # Everything else is as it was.
    for name, parameter in model.named_parameters():
        same = torch.ones_like(parameter, dtype=torch.bool)
        if name in ("0.weight", "0.bias"):
            same[4] = False
        if name == "3.weight":
            same[:, columns] = False
        assert torch.equal(parameter[same], before[name][same])


def test_recycling_a_silent_unit_leaves_the_output_alone():
    model = network()
    silence(model[0], 1)
    before = model(FRAMES)
    assert ReDo(model, graph()).step(0.0, FRAMES).units == 1
    torch.testing.assert_close(model(FRAMES), before)


def test_a_weight_between_two_recycled_units_ends_at_zero():
    model = network()
    silence(model[0], 0)
    silence(model[3], 2)
    assert ReDo(model, graph()).step(0.0, FRAMES).units == 2
    assert (model[3].weight[2, :4] == 0).all()
    assert (model[3].weight[2, 4:] != 0).all()
    assert (model[5].weight[:, 2] == 0).all()


def test_it_fires_every_interval_th_call():
    model = network()
    redo = ReDo(model, graph(), interval=3)
    fired = []
    for _ in range(7):
        silence(model[0], 0)
        fired.append(redo.step(0.5, FRAMES).changed)
    assert fired == [False, False, True, False, False, True, False]


def test_a_restored_redo_draws_the_same_weights():
    first, second = network(), network()
    redo, restored = ReDo(first, graph(), interval=2, seed=1), ReDo(second, graph(), interval=2, seed=9)
    redo.step(0.0, FRAMES)
    restored.load_state_dict(redo.state_dict())
    for model, method in ((first, redo), (second, restored)):
        silence(model[0], 5)
        assert method.step(0.0, FRAMES).changed
    assert torch.equal(first[0].weight, second[0].weight)


def test_other_layers_and_bad_options_are_refused():
    model = network()
    model[3] = nn.LayerNorm(24)
    with pytest.raises(ValueError, match=r"'3\.weight' belongs to a LayerNorm"):
        ReDo(model, graph())
    with pytest.raises(ValueError, match="`threshold` must be at least 0, got -1"):
        ReDo(network(), graph(), threshold=-1)
    with pytest.raises(ValueError, match="`interval` must be at least 1, got 0"):
        ReDo(network(), graph(), interval=0)
