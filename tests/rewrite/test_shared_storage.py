"""Parameters in shared memory, or in one memory with other tensors."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

import gsprune
from gsprune.rewrite.shared_storage import check_storages

X = torch.ones(2, 6)
X_IMAGE = torch.ones(2, 3, 4, 4)


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2)
    )


def flattened(model: nn.Module) -> Tensor:
    """One tensor of which all parameters are parts."""
    flat = parameters_to_vector(model.parameters()).detach()
    start = 0
    for parameter in model.parameters():
        parameter.data = flat[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    return flat


def unchanged(model: nn.Module, shapes: dict[str, torch.Size], pointers: dict[str, int]) -> bool:
    return all(
        value.shape == shapes[name] and value.data_ptr() == pointers[name] for name, value in model.state_dict().items()
    )


def assert_refused(model: nn.Module, x: Tensor, match: str, step: Callable[[], object] | None = None) -> None:
    """The step is refused, and every tensor keeps its place and its values."""
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    pointers = {name: value.data_ptr() for name, value in model.state_dict().items()}
    values = copy.deepcopy(model.state_dict())
    with pytest.raises(gsprune.RewriteError, match=match):
        (step or (lambda: gsprune.prune_step(model, 0.5, example_inputs=x)))()
    assert unchanged(model, shapes, pointers)
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("make", "x"), [(layers, X), (convolutions, X_IMAGE)], ids=["layers", "convolutions"])
def test_a_network_in_shared_memory_is_refused(make: Callable[[], nn.Module], x: Tensor) -> None:
    model = make().share_memory()
    assert_refused(model, x, r"in shared memory.*Prune before `share_memory\(\)`")
    assert all(tensor.is_shared() for tensor in model.state_dict().values())


def test_memory_that_is_shared_after_a_step_is_found_at_the_next() -> None:
    model = layers()
    assert gsprune.prune_step(model, 0.25, example_inputs=X).changed
    model.share_memory()
    assert_refused(model, X, "in shared memory")


def test_one_shared_parameter_is_named() -> None:
    model = layers()
    model.get_parameter("2.bias").data.share_memory_()
    assert_refused(model, X, "'2.bias' is in shared memory")


def test_a_follower_in_shared_memory_is_refused() -> None:
    model = layers()
    actor = copy.deepcopy(model).share_memory()
    step = lambda: gsprune.prune_step(model, 0.5, example_inputs=X, followers=actor)  # noqa: E731
    assert_refused(model, X, "in shared memory", step)
    assert actor.get_parameter("0.weight").shape == (16, 6)


def test_the_way_out_of_shared_memory_works() -> None:
    model = layers().share_memory()
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    assert gsprune.prune_step(model, 0.5, optimizer=optimizer, example_inputs=X).changed
    model.share_memory()
    assert model.get_parameter("0.weight").shape == (8, 6)
    assert all(parameter.is_shared() for parameter in model.parameters())


def test_what_changes_nothing_is_not_refused() -> None:
    model = layers().share_memory()
    assert gsprune.prune_step(model, 0.5, example_inputs=X, dry_run=True).changed
    assert not gsprune.prune_step(model, 0.0, example_inputs=X).changed


@pytest.mark.parametrize(("make", "x"), [(layers, X), (convolutions, X_IMAGE)], ids=["layers", "convolutions"])
def test_parts_of_a_flat_tensor_are_refused(make: Callable[[], nn.Module], x: Tensor) -> None:
    model = make()
    flat = flattened(model)
    assert_refused(model, x, rf"view into the memory of another tensor, of shape \({len(flat)},\)")
    assert gsprune.prune_step(copy.deepcopy(make()), 0.5, example_inputs=x).changed


def test_parts_of_a_flat_tensor_that_nobody_holds_are_pruned() -> None:
    model, twin = layers(), layers()
    flattened(model)
    gsprune.prune_step(model, 0.5, example_inputs=X)
    gsprune.prune_step(twin, 0.5, example_inputs=X)
    assert torch.equal(model(X), twin(X))


def test_a_slice_of_a_population_is_refused() -> None:
    models = [layers() for _ in range(3)]
    stack = torch.stack([model.get_parameter("0.weight").detach() for model in models])
    for model, part in zip(models, stack, strict=True):
        model.get_parameter("0.weight").data = part
    assert_refused(models[1], X, r"'0.weight' is a view into .* shape \(3, 16, 6\)")


def test_parameters_that_are_tied_by_their_data_are_refused() -> None:
    model = layers()
    model.get_parameter("2.bias").data = model.get_parameter("0.bias").data
    assert_refused(model, X, r"\.bias' is a view into .*tie whole parameters by assigning the parameter")


def test_a_tie_of_transposed_data_is_refused() -> None:
    model = nn.Sequential(nn.Linear(6, 16, bias=False), nn.ReLU(), nn.Linear(16, 6, bias=False))
    model.get_parameter("2.weight").data = model.get_parameter("0.weight").data.t()
    assert_refused(model, X, "is a view into the memory of another tensor")


def test_a_follower_in_the_model_s_memory_is_refused() -> None:
    model, target = layers(), layers()
    for ours, theirs in zip(model.parameters(), target.parameters(), strict=True):
        theirs.data = ours.data
    step = lambda: gsprune.prune_step(model, 0.5, example_inputs=X, followers=target)  # noqa: E731
    assert_refused(model, X, "is a view into the memory of another tensor", step)


@pytest.mark.parametrize("sparsity", [0.25, 0.75])
def test_tied_parameters_and_views_of_one_s_own_are_pruned(sparsity: float) -> None:
    model = layers()
    model[2].bias = model[0].bias
    held = [parameter.detach().t() for parameter in model.parameters() if parameter.ndim == 2]
    report = gsprune.prune_step(model, sparsity, example_inputs=X)
    assert report.channel_sparsity == sparsity
    assert model[2].bias is model[0].bias
    assert held[0].shape == (6, 16)


def test_gradients_that_are_parts_of_a_bucket_are_sliced() -> None:
    model, twin = layers(), layers()
    for each in (model, twin):
        each(X).square().sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    bucket = torch.cat([gradient.flatten() for gradient in gradients])
    start = 0
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.grad = bucket[start : start + gradient.numel()].view_as(gradient)
        start += gradient.numel()
    for each in (model, twin):
        gsprune.prune_step(each, 0.5, example_inputs=X)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("library", ["torch", "torch mapped", "safetensors"])
def test_weights_assigned_from_a_file_are_pruned(library: str, tmp_path: Path) -> None:
    twin = layers()
    path = tmp_path / "weights"
    if library == "safetensors":
        save_file(twin.state_dict(), path)
        weights = load_file(path)
    else:
        torch.save(twin.state_dict(), path)
        weights = torch.load(path, mmap=library == "torch mapped")
    model = layers()
    model.load_state_dict(weights, assign=True)
    for each in (model, twin):
        assert gsprune.prune_step(each, 0.5, example_inputs=X).changed
    assert torch.equal(model(X), twin(X))


@pytest.mark.parametrize("make", [lambda m: m.share_memory(), flattened], ids=["shared", "flat"])
def test_a_narrow_file_is_not_loaded_into_memory_with_other_users(
    make: Callable[[nn.Module], object], tmp_path: Path
) -> None:
    narrow, model = layers(), layers()
    gsprune.prune_step(narrow, 0.5, example_inputs=X)
    gsprune.save(narrow, tmp_path / "narrow.safetensors")
    held = make(model)
    step = lambda: gsprune.load(tmp_path / "narrow.safetensors", into=model)  # noqa: E731
    assert_refused(model, X, "nothing was changed", step)
    assert held is not None


def test_the_storages_of_recurrent_layers_count_as_their_own() -> None:
    model = nn.LSTM(6, 8)
    tensors = dict(model.named_parameters())
    check_storages(list(tensors.values()), [tensors])


def test_the_message_names_the_way_out() -> None:
    tensor = torch.zeros(3).share_memory_()
    with pytest.raises(gsprune.RewriteError) as error:
        check_storages([tensor], [{"layer.bias": tensor}])
    assert re.match(r"'layer\.bias' is in shared memory", str(error.value))
    assert "share the smaller network again" in str(error.value)
