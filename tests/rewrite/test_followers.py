"""Followers that are mere containers of tensors, and what is refused with the way out."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gsprune

X = torch.randn(4, 6)


def dense() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


class Container(nn.Module):
    """Copies of a network's tensors, kept in one module under names of its own."""

    def __init__(
        self, model: nn.Module, name_of: Callable[[str], str], *, buffers: bool = True, trainable: bool = False
    ) -> None:
        super().__init__()
        for name, tensor in [*model.named_parameters(), *(model.named_buffers() if buffers else ())]:
            held = tensor.detach().clone()
            if trainable and tensor.is_floating_point():  # register_parameter refuses dots
                self._parameters[name_of(name)] = nn.Parameter(held)
            else:
                self._buffers[name_of(name)] = held


@pytest.mark.parametrize("separator", [".", "/", "_", ":", ""])
@pytest.mark.parametrize("options", [{}, {"buffers": False}, {"trainable": True}])
def test_a_container_is_sliced_by_the_names_of_its_tensors(separator: str, options: dict[str, bool]) -> None:
    model = dense()
    container = Container(model, lambda name: name.replace(".", separator), **options)
    identities = {name: id(tensor) for name, tensor in container.state_dict(keep_vars=True).items()}
    for sparsity in (0.25, 0.5):
        gsprune.prune_step(model, sparsity, followers=container, example_inputs=X)
    assert model[0].weight.shape == (8, 6)
    held = container.state_dict(keep_vars=True)
    assert {name: id(tensor) for name, tensor in held.items()} == identities
    expected = {name.replace(".", separator): tensor for name, tensor in model.state_dict().items()}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in held.items())
    assert len(held) >= 6


def test_a_container_with_a_counter_of_its_own_is_sliced() -> None:
    model = dense()
    container = Container(model, lambda name: name.replace(".", ""))
    container.register_buffer("updates", torch.tensor(3))
    gsprune.prune_step(model, 0.5, followers=[container], example_inputs=X)
    assert container._buffers["0weight"].shape == (8, 6)


@pytest.mark.parametrize(
    ("name_of", "message"),
    [
        (
            lambda name: f"average_{name.replace('.', '_')}",
            r"no tensor '0.weight' \(its first is 'average_0_weight'\).*report.slice\(name, tensor.data\)",
        ),
        (lambda name: name.replace("weight", "w"), "no tensor|lacks"),
    ],
)
def test_a_container_of_other_names_is_refused_with_the_way_out(name_of: Callable[[str], str], message: str) -> None:
    model = dense()
    container = Container(model, name_of)
    with pytest.raises(ValueError, match=message):
        gsprune.prune_step(model, 0.5, followers=container, example_inputs=X)
    assert model[0].weight.shape == (16, 6)


def test_a_container_of_another_width_is_refused() -> None:
    container = Container(dense(), lambda name: name.replace(".", "/"))
    container._buffers["0/weight"] = torch.zeros(12, 6)
    with pytest.raises(ValueError, match=r"'0.weight' has shape \(12, 6\), the model's has \(16, 6\)"):
        gsprune.prune_step(dense(), 0.5, followers=container, example_inputs=X)


def test_torchrls_target_parameters_are_sliced() -> None:
    tensordict = pytest.importorskip("tensordict")
    model = dense()
    target = tensordict.TensorDictParams(tensordict.TensorDict.from_module(copy.deepcopy(model)).data, no_convert=True)
    gsprune.prune_step(model, 0.5, followers=target, example_inputs=X)
    assert torch.equal(target.get(("0", "weight")), model[0].weight)
    with target.to_module(model):
        assert model(X).shape == (4, 4)


class EvalMode(nn.Module):
    """A wrapper that keeps a target network in eval mode, as tianshou's does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module.eval()(x)


def test_a_follower_in_a_wrapper_of_its_own_is_found() -> None:
    model = dense()
    target = EvalMode(copy.deepcopy(model))
    for sparsity in (0.25, 0.5):
        gsprune.prune_step(model, sparsity, followers=target, example_inputs=X)
    assert torch.equal(target.module[0].weight, model[0].weight)
    assert target.module[0].out_features == 8
    assert torch.equal(target(X), model.eval()(X))


def test_a_follower_in_a_wrapper_with_hooks_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`followers\[0\]` is wrapped in DataParallel.*prune the module inside"):
        gsprune.prune_step(dense(), 0.5, followers=nn.DataParallel(dense()), example_inputs=X)


def test_a_wrapped_copy_of_another_architecture_is_refused() -> None:
    target = EvalMode(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)))
    with pytest.raises(ValueError, match=r"no tensor '0.weight' \(its first is 'module.0.weight'\)"):
        gsprune.prune_step(dense(), 0.5, followers=target, example_inputs=X)


def scripted(model: nn.Module) -> nn.Module:
    return torch.jit.script(model)


def traced(model: nn.Module) -> nn.Module:
    return torch.jit.trace(model.eval(), X)


def frozen(model: nn.Module) -> nn.Module:
    return torch.jit.freeze(torch.jit.script(model.eval()))


class Around(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.head = inner, nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x))


# torch 2.13 raises a DeprecationWarning, torch 2.15 a FutureWarning, so the filter names no category.
needs_script = pytest.mark.filterwarnings("ignore:.*torch.jit.*is (deprecated|not supported)")


@needs_script
@pytest.mark.parametrize("make", [scripted, traced, frozen])
def test_torchscript_is_refused_wherever_it_is_given(make: Callable[[nn.Module], nn.Module]) -> None:
    script = make(dense())
    with pytest.raises(TypeError, match=r"`model` is a scripted.*prune the Python module, and call torch.jit.script"):
        gsprune.prune_step(script, 0.5, example_inputs=X)
    with pytest.raises(TypeError, match="`model` is a scripted"):
        gsprune.trace(script, X)
    with pytest.raises(gsprune.errors.TraceError, match="inner is a scripted or traced TorchScript module"):
        gsprune.prune_step(Around(script), 0.5, example_inputs=X)
    with pytest.raises(gsprune.errors.TraceError, match="the model is a scripted or traced TorchScript module"):
        gsprune.cost(script, X)
    model = dense()
    with pytest.raises(TypeError, match=r"`followers\[0\]` is a scripted"):
        gsprune.prune_step(model, 0.5, followers=script, example_inputs=X)
    assert model[0].weight.shape == (16, 6)


def test_a_follower_that_ties_what_the_model_cuts_differently_is_refused() -> None:
    model = nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, 3)
    )
    follower = copy.deepcopy(model)
    follower[4] = follower[2]
    with pytest.raises(gsprune.RewriteError, match=r"ties '2\.\w+' and '4\.\w+'.*nothing was changed"):
        gsprune.prune_step(model, {"2": 0.5}, followers=[follower], example_inputs=X)
    assert model[2].weight.shape == (16, 16)
