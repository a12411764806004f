import copy

import pytest
import torch
from torch import nn

from gsprune.baselines.masks import keep_highest, maskable_layers, masked_count
from gsprune.baselines.structured import StructuredPruning
from gsprune.baselines.unstructured import UnstructuredPruning
from gsprune.errors import CheckpointError

METHODS = [UnstructuredPruning, StructuredPruning]
FRAMES = torch.zeros(1)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 10, 3), nn.ReLU(), nn.Flatten(), nn.Linear(10 * 16, 8), nn.ReLU(), nn.Linear(8, 5)
    ).double()


def linear_schedule(progress):
    return progress


def loss_of(model, seed):
    inputs = torch.randn(4, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return model(inputs).square().sum()


def train_step(model, optimizer, method, seed):
    optimizer.zero_grad()
    loss_of(model, seed).backward()
    method.after_backward()
    optimizer.step()
    method.after_optimizer_step()


def zeros(method):
    return {name: ~mask for name, mask in method.masks.items()}


@pytest.mark.parametrize("method_class", METHODS)
@pytest.mark.parametrize("optimizer_class", [torch.optim.Adam, torch.optim.RMSprop, torch.optim.NAdam])
def test_masked_weights_gradients_and_moments_stay_zero(method_class, optimizer_class):
    model = network()
    optimizer = optimizer_class(model.parameters(), lr=1e-2)
    method = method_class(model, linear_schedule, [optimizer], ignore=["5"])
    train_step(model, optimizer, method, 0)
    for step in range(1, 8):
        method.step(step / 10, FRAMES)
        for repeat in range(2):
            train_step(model, optimizer, method, 10 * step + repeat)
            for name, parameter in model.named_parameters():
                if name not in method.masks:
                    continue
                gone = zeros(method)[name]
                assert (parameter[gone] == 0).all()
                assert parameter.grad is not None
                assert (parameter.grad[gone] == 0).all()
                moments = [value for value in optimizer.state[parameter].values() if value.shape == parameter.shape]
                assert moments
                assert all((value[gone] == 0).all() for value in moments)
    assert sum(int(mask.sum()) for mask in zeros(method).values()) > 0


def test_a_masked_network_trains_like_one_whose_weights_are_products_with_the_mask():
    model, plain = network(), network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    method = UnstructuredPruning(model, linear_schedule, [optimizer], ignore=["5"])
    method.step(0.6, FRAMES)
    masks = {name: method.masks.get(name, torch.ones(())).double() for name, _ in plain.named_parameters()}
    reference = torch.optim.Adam(plain.parameters(), lr=1e-2)
    for seed in range(5):
        train_step(model, optimizer, method, seed)
        reference.zero_grad()
        masked = {name: parameter * masks[name] for name, parameter in plain.named_parameters()}
        inputs = torch.randn(4, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        torch.func.functional_call(plain, masked, inputs).square().sum().backward()
        reference.step()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), parameter * masks[name], rtol=0, atol=1e-12)


def test_unstructured_masks_the_smallest_weights_of_every_layer():
    model = nn.Sequential(nn.Linear(5, 1, bias=False), nn.Linear(1, 4, bias=False), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, -1.0, 2.0, -5.0, 0.5]]))
        model[1].weight.copy_(torch.tensor([[1.0], [1.0], [1.0], [1.0]]))
    method = UnstructuredPruning(model, linear_schedule, ignore=["2"])
    report = method.step(0.5, FRAMES)
    assert method.masks["0.weight"].int().tolist() == [[1, 0, 1, 1, 0]]
    # Equal scores: the lower index is kept.
    assert method.masks["1.weight"].int().tolist() == [[1], [1], [0], [0]]
    assert (report.changed, report.units, report.sparsity) == (True, 4, pytest.approx(4 / 9))
    assert not method.step(0.5, FRAMES).changed


def test_structured_masks_the_filters_of_least_l1_norm_with_their_biases():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([2.0, -1.0, 3.0, 0.5]).view(4, 1, 1, 1))
    method = StructuredPruning(model, linear_schedule, ignore=["1"])
    report = method.step(0.5, FRAMES)
    assert model[0].weight.flatten().tolist() == [2.0, 0.0, 3.0, 0.0]
    assert (model[0].bias == 0).tolist() == [False, True, False, True]
    assert model[1].weight.ne(0).all()
    assert report.sparsity == 0.5


@pytest.mark.parametrize("method_class", METHODS)
def test_masks_only_ever_lose_also_when_the_schedule_goes_back(method_class):
    model = network()
    method = method_class(model, linear_schedule, ignore=["5"])
    method.step(0.5, FRAMES)
    before = {name: mask.clone() for name, mask in method.masks.items()}
    with torch.no_grad():
        # A masked weight that somebody has set to a large value is masked all the same.
        model[0].weight.fill_(100.0)
    assert not method.step(0.2, FRAMES).changed
    assert all(torch.equal(before[name], mask) for name, mask in method.masks.items())
    method.step(0.7, FRAMES)
    assert all((mask <= before[name]).all() for name, mask in method.masks.items())


@pytest.mark.parametrize("method_class", METHODS)
def test_a_follower_is_masked_in_the_same_step(method_class):
    model = network()
    target = copy.deepcopy(model)
    with torch.no_grad():
        target[0].weight.add_(1.0)
    method = method_class(model, linear_schedule, followers=[target], ignore=["5"])
    method.step(0.5, FRAMES)
    gone = zeros(method)["0.weight"]
    assert gone.any()
    assert (target[0].weight[gone] == 0).all()
    assert (target[0].weight[~gone] != 0).all()


@pytest.mark.parametrize("method_class", METHODS)
def test_a_restored_method_goes_on_as_the_original(method_class):
    model, restored_model = network(), network(1)
    method = method_class(model, linear_schedule, ignore=["5"])
    method.step(0.4, FRAMES)
    restored_model.load_state_dict(model.state_dict())
    restored = method_class(restored_model, linear_schedule, ignore=["5"])
    restored.load_state_dict(method.state_dict())
    assert restored.step(0.4, FRAMES) == method.step(0.4, FRAMES)
    assert restored.step(0.6, FRAMES) == method.step(0.6, FRAMES)
    assert all(torch.equal(restored.masks[name], mask) for name, mask in method.masks.items())


def test_masks_of_another_network_are_refused_and_nothing_changes():
    method = UnstructuredPruning(network(), linear_schedule, ignore=["5"])
    state = {**method.state_dict(), "3.weight": torch.zeros(2, 2, dtype=torch.bool)}
    with pytest.raises(CheckpointError, match=r"of another network: 3\.weight differ"):
        method.load_state_dict(state)
    assert all(mask.all() for mask in method.masks.values())


def test_bad_arguments_name_the_way_out():
    model = network()
    with pytest.raises(ValueError, match="'head', which matches none of the layers 0, 3, 5"):
        UnstructuredPruning(model, linear_schedule, ignore=["head"])
    with pytest.raises(ValueError, match="nothing to mask"):
        maskable_layers(model, ["*"])
    with pytest.raises(ValueError, match=r"a follower differs from the model in 0\.weight"):
        UnstructuredPruning(model, linear_schedule, followers=[nn.Linear(2, 2)])


@pytest.mark.parametrize(
    ("size", "sparsity", "count"), [(10, 0.8, 8), (10, 0.79, 7), (5, 0.2 + 0.2 + 0.2, 3), (7, 0, 0)]
)
def test_the_masked_count_rounds_down_but_forgives_rounding_errors(size, sparsity, count):
    assert masked_count(size, sparsity) == count


def test_keep_highest_never_revives():
    present = torch.tensor([True, False, True])
    assert keep_highest(torch.tensor([1.0, 9.0, 2.0]), present, 0).tolist() == [True, False, True]
    assert keep_highest(torch.tensor([1.0, 9.0, 2.0]), present, 2).tolist() == [False, False, True]
