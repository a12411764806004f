"""A later step: with another example or call, or on a network that the user has changed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from masked_networks import masked_copy
from torch import Tensor, nn

import gsprune
import gsprune.pruning.session
from gsprune.rewrite.session import session_of


class Agent(nn.Module):
    """Has two calls and no forward."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
        self.actor, self.critic = nn.Linear(16, 4), nn.Linear(16, 1)

    def act(self, x: Tensor) -> Tensor:
        return self.actor(self.body(x))

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x)
        return self.actor(hidden), self.critic(hidden)


class Encoder(nn.Module):
    """Takes inputs by name, of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Conv1d(2, 12, 3, padding=1), nn.Conv1d(12, 3, 1)

    def forward(self, signal: Tensor, scale: float = 1.0, repeats: int = 1) -> Tensor:
        for _ in range(repeats):
            hidden = self.up(signal).relu()
        return self.down(hidden) * scale


class Residual(nn.Module):
    """Convolutions whose stream several layers write."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 12, 3, padding=1), nn.Linear(12, 2)
        self.blocks = nn.ModuleList(nn.Sequential(nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.relu().mean((2, 3)))


def plain() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )


SIZES: dict[str, tuple[Callable[[], nn.Module], Any, Any]] = {
    "plain": (plain, torch.ones(1, 3, 8, 8), torch.ones(2, 3, 20, 12)),
    "residual": (Residual, torch.ones(2, 3, 6, 6), torch.ones(2, 3, 14, 14)),
    "by name": (Encoder, {"signal": torch.ones(1, 2, 8)}, {"signal": torch.ones(1, 2, 40)}),
}


def made(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry per trace that a step makes of a given example."""
    seen: list[object] = []
    original = gsprune.pruning.session.trace_call

    def counted(model: nn.Module, example: Any, copies: Mapping[str, str]) -> Any:
        seen.append(example)
        return original(model, example, copies)

    monkeypatch.setattr(gsprune.pruning.session, "trace_call", counted)
    return seen


@pytest.mark.parametrize("name", SIZES)
def test_costs_are_those_of_the_last_example(name: str) -> None:
    make, small, large = SIZES[name]
    model = made(make)
    gsprune.prune_step(model, 0.0, example_inputs=small)
    report = gsprune.prune_step(model, 0.25, target="macs", example_inputs=large)
    fresh = made(make)
    expected = gsprune.prune_step(fresh, 0.25, target="macs", example_inputs=large)
    assert (report.macs_before, report.macs_after) == (expected.macs_before, expected.macs_after)
    assert report.macs_before > 1.5 * gsprune.trace(made(make), small).macs()
    assert [p.shape for p in model.parameters()] == [p.shape for p in fresh.parameters()]


@pytest.mark.parametrize("name", SIZES)
def test_first_seen_widths_and_kept_indices_stay(name: str) -> None:
    make, small, large = SIZES[name]
    model, other = made(make), made(make)
    x = large
    for sparsity, example in ((0.25, small), (0.5, large), (0.75, small)):
        report = gsprune.prune_step(model, sparsity, example_inputs=example)
        expected = gsprune.prune_step(other, sparsity, example_inputs=x)
        assert report.channel_sparsity == expected.channel_sparsity
    ours, theirs = session_of(model), session_of(other)
    assert ours is not None
    assert theirs is not None
    assert ours.initial_widths == theirs.initial_widths
    assert ours.kept.keys() == theirs.kept.keys()
    for tensor, axes in ours.kept.items():
        assert {axis: list(kept) for axis, kept in axes.items()} == {
            axis: list(kept) for axis, kept in theirs.kept[tensor].items()
        }


@pytest.mark.parametrize("name", SIZES)
def test_the_sparsity_of_macs_counts_from_the_dense_network_at_the_new_size(name: str) -> None:
    make, small, large = SIZES[name]
    model = made(make)
    dense = gsprune.trace(model, large).macs()
    gsprune.prune_step(model, 0.25, example_inputs=small)
    report = gsprune.prune_step(model, 0.6, target="macs", example_inputs=large)
    assert report.macs_after == gsprune.trace(model, large).macs()
    assert report.mac_sparsity == pytest.approx(1 - report.macs_after / dense)


@pytest.mark.parametrize("importance", ["l1", "activation"])
def test_inputs_without_a_call_go_through_the_one_given_before(importance: str) -> None:
    model = made(Agent)
    gsprune.prune_step(model, 0.25, example_inputs=torch.ones(4, 6), forward=lambda m, x: m.both(x))
    for rows in (4, 8):
        x = torch.randn(rows, 6)
        report = gsprune.prune_step(model, 0.25 + rows / 40, example_inputs=x, importance=importance)
        assert report.changed
    state = session_of(model)
    assert state is not None
    assert state.example is not None
    assert torch.equal(state.example.args[0], x)
    assert len(state.example.call(model)) == 2


def test_a_call_without_inputs_gets_those_given_before() -> None:
    model = made(Agent)
    x = torch.ones(4, 6)
    gsprune.prune_step(model, 0.25, example_inputs=x, forward=lambda m, x: m.both(x))
    gsprune.prune_step(model, 0.5, forward=lambda m, x: m.both(x.flip(0)))
    state = session_of(model)
    assert state is not None
    assert state.example is not None
    assert state.example.args[0] is x


def test_a_pruner_with_an_example_keeps_its_call(traces: list[object]) -> None:
    model = made(Agent)
    pruner = gsprune.Pruner(
        model, lambda t: 0.8 * t, example_inputs=torch.ones(4, 6), forward=lambda m, x: m.both(x), importance="l2"
    )
    for step in range(1, 5):
        assert pruner.step(step / 4).changed
    assert not traces


def test_no_trace_where_only_values_differ(traces: list[object]) -> None:
    model = made(Encoder)
    for index in range(4):
        example = {"signal": torch.randn(1, 2, 8), "scale": 1.0 + index}
        gsprune.prune_step(model, 0.2 * index, example_inputs=example, forward=lambda m, **inputs: m(**inputs))
    assert not traces


@pytest.mark.parametrize(
    ("example", "macs"),
    [
        ({"signal": torch.ones(1, 2, 16)}, 2.0),
        ({"signal": torch.ones(4, 2, 8)}, 1.0),
        ({"signal": torch.ones(1, 2, 8), "repeats": 1}, 1.0),
    ],
    ids=["length", "batch", "number"],
)
def test_a_trace_where_sizes_or_numbers_differ(traces: list[object], example: dict[str, Any], macs: float) -> None:
    model = made(Encoder)
    first = gsprune.prune_step(model, 0.0, example_inputs={"signal": torch.ones(1, 2, 8)})
    again = gsprune.prune_step(model, 0.0, example_inputs=example)
    assert len(traces) == 1
    assert again.macs_before == macs * first.macs_before


def test_an_int_that_decides_how_much_runs_is_counted() -> None:
    model = made(Encoder)
    once = gsprune.prune_step(model, 0.0, example_inputs={"signal": torch.ones(1, 2, 8), "repeats": 1})
    twice = gsprune.prune_step(model, 0.0, example_inputs={"signal": torch.ones(1, 2, 8), "repeats": 2})
    assert twice.macs_before - once.macs_before == model.get_parameter("up.weight").numel() * 8


def test_an_example_that_fails_is_refused_and_the_old_one_stays() -> None:
    model = made(plain)
    gsprune.prune_step(model, 0.25, example_inputs=torch.ones(1, 3, 8, 8))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(gsprune.TraceError, match=r"\(1, 5, 8, 8\)"):
        gsprune.prune_step(model, 0.5, example_inputs=torch.ones(1, 5, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert gsprune.prune_step(model, 0.5).changed


def test_a_call_that_reaches_less_keeps_the_groups_that_are_known() -> None:
    model = made(Agent)
    x = torch.ones(4, 6)
    gsprune.prune_step(model, 0.25, example_inputs=x, forward=lambda m, x: m.both(x))
    gsprune.prune_step(model, 0.5, example_inputs=x, forward=lambda m, x: m.act(x))
    assert [output.shape for output in model.both(x)] == [(4, 4), (4, 1)]
    assert model.get_parameter("body.2.weight").shape == (8, 8)


def test_a_call_that_reaches_other_layers_leaves_them_able_to_run() -> None:
    model = made(Agent)
    x = torch.ones(4, 6)
    gsprune.prune_step(model, 0.0, example_inputs=x, forward=lambda m, x: m.actor(m.body(x)))
    with pytest.warns(gsprune.PruneWarning, match="the example did not run actor of Agent"):
        report = gsprune.prune_step(model, 0.5, example_inputs=x, forward=lambda m, x: m.critic(m.body(x)))
    assert [output.shape for output in model.both(x)] == [(4, 4), (4, 1)]
    assert "actor was not run by the example and may read them" in str(report.protected)
    assert model.get_parameter("body.0.weight").shape == (8, 6)


def test_a_copy_and_an_unpickled_model_take_an_example_of_another_size() -> None:
    model = made(plain)
    gsprune.prune_step(model, 0.25, example_inputs=torch.ones(1, 3, 8, 8))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        report = gsprune.prune_step(twin, 0.5, example_inputs=torch.ones(1, 3, 16, 16))
        assert report.channel_sparsity == 0.5
        assert report.macs_after == gsprune.trace(twin, torch.ones(1, 3, 16, 16)).macs()


def test_a_new_call_on_a_made_example_does_not_pass_for_a_real_one() -> None:
    model = made(plain)
    gsprune.prune_step(model, 0.25)
    gsprune.prune_step(model, 0.5, forward=lambda m, x: m(x + 1))
    with pytest.raises(ValueError, match="pass `example_inputs` of the real size"):
        gsprune.prune_step(model, 0.6, target="macs")


def test_a_call_that_is_none_is_refused_at_a_later_step() -> None:
    model = made(plain)
    gsprune.prune_step(model, 0.25, example_inputs=torch.ones(1, 3, 8, 8))
    with pytest.raises(TypeError, match="`forward` must be callable"):
        gsprune.prune_step(model, 0.5, forward="act")  # type: ignore[arg-type]


class Heads(nn.Module):
    """A body with a norm and a dictionary of heads, all of which run."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm = nn.Linear(6, 20, bias=False), nn.Identity()
        self.adapter: nn.Module | None = None
        self.shift: Tensor | None
        self.register_buffer("shift", None)
        self.heads = nn.ModuleDict({"a": nn.Linear(20, 2)})

    def forward(self, x: Tensor) -> list[Tensor]:
        hidden = self.norm(self.body(x))
        if self.adapter is not None:
            hidden = hidden + self.adapter(hidden)
        if self.shift is not None:
            hidden = hidden + self.shift
        return [head(hidden.relu()) for head in self.heads.values()]


def _width(model: Heads) -> int:
    return len(model.body.weight)


def add_head(model: Heads) -> None:
    model.heads["b"] = nn.Linear(_width(model), 3)


def add_norm(model: Heads) -> None:
    model.norm = nn.BatchNorm1d(_width(model))


def add_adapter(model: Heads) -> None:
    model.adapter = nn.Linear(_width(model), _width(model))


def add_bias(model: Heads) -> None:
    model.body.bias = nn.Parameter(torch.ones(_width(model)))


def add_buffer(model: Heads) -> None:
    model.register_buffer("shift", torch.ones(_width(model)))


def widen(model: Heads) -> None:
    more = 6
    model.body.weight.data = torch.cat([model.body.weight.data, torch.rand(more, 6)])
    model.heads["a"].weight.data = torch.cat([model.heads["a"].weight.data, torch.rand(2, more)], 1)


@pytest.mark.parametrize("importance", ["l1", "random"])
@pytest.mark.parametrize("change", [add_head, add_norm, add_adapter, add_bias, add_buffer, widen])
def test_a_network_that_the_user_has_changed_is_traced_again(
    traces: list[object], change: Callable[[Heads], None], importance: str
) -> None:
    model, x = made(Heads), torch.randn(4, 6)
    assert isinstance(model, Heads)
    gsprune.prune_step(model, 0.5, example_inputs=x, importance=importance)
    change(model)
    dense = copy.deepcopy(model).double().eval()
    report = gsprune.prune_step(model, 0.7, importance=importance)
    assert len(traces) == 1
    assert _width(model) == 6
    smaller, masked = model.double().eval()(x.double()), masked_copy(dense, report.removed)(x.double())
    assert all(torch.allclose(a, b) for a, b in zip(smaller, masked, strict=True))
    gsprune.prune_step(model, 0.8, importance=importance)
    assert (len(traces), _width(model)) == (1, 4)


def test_untied_weights_are_pruned_apart(traces: list[object]) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    model[2].weight = model[1].weight
    x = torch.randn(3, 6)
    gsprune.prune_step(model, 0.25, example_inputs=x)
    model[2].weight = nn.Parameter(model[2].weight.detach().clone())
    assert gsprune.prune_step(model, 0.5).changed
    assert len(traces) == 1
    assert model(x).shape == (3, 2)


def test_a_module_without_tensors_that_the_user_replaces_is_traced(traces: list[object]) -> None:
    model = made(plain)
    x = torch.ones(1, 3, 8, 8)
    gsprune.prune_step(model, 0.25, example_inputs=x)
    model[1] = nn.PixelShuffle(1)
    model[4] = nn.AdaptiveMaxPool2d(1)
    gsprune.prune_step(model, 0.5)
    assert len(traces) == 1
    assert model(x).shape == (1, 2)


def test_tensors_that_the_user_replaces_by_others_of_the_same_shape_need_no_trace(traces: list[object]) -> None:
    model = made(plain)
    x = torch.ones(1, 3, 8, 8)
    gsprune.prune_step(model, 0.25, example_inputs=x)
    model[2].weight = nn.Parameter(torch.rand_like(model[2].weight))
    assert gsprune.prune_step(model, 0.5).changed
    assert not traces
    assert model(x).shape == (1, 2)


class Reshape(nn.Module):
    """Stores a width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.width)


@pytest.mark.parametrize("replacement", [nn.Identity(), Reshape(12), None])
def test_a_module_with_a_stored_width_can_be_replaced_and_removed(replacement: nn.Module | None) -> None:
    model = nn.Sequential(nn.Linear(6, 24), Reshape(24), nn.ReLU(), nn.Linear(24, 2))
    x = torch.randn(4, 6)
    gsprune.prune_step(model, 0.5, example_inputs=x)
    if replacement is None:
        del model[1]
    else:
        model[1] = replacement
    gsprune.prune_step(model, 0.75)
    assert len(model[0].weight) == 6
    assert model(x).shape == (4, 2)
    session = session_of(model)
    assert session is not None
    assert session.attributes.get("1", {}) == ({"width": 6} if isinstance(replacement, Reshape) else {})


def test_a_layer_can_be_inserted_between_pruned_ones() -> None:
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3))
    x = torch.randn(4, 6)
    gsprune.prune_step(model, 0.25, example_inputs=x)
    model.insert(2, nn.BatchNorm1d(15))
    gsprune.prune_step(model.eval(), 0.5)
    assert model[2].num_features == 10
    assert model(x).shape == (4, 3)
