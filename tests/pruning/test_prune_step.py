"""`prune_step` as a user meets it: what stays, what follows, and what a bad argument says."""

from __future__ import annotations

import copy
import importlib.util
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from snapshots import snapshot
from torch import Tensor, nn

import gsprune
from gsprune import PruneWarning


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 64, 12),
        nn.ReLU(),
        nn.Linear(12, 5),
    )


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def trained(net: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(net.parameters())
    net(X).square().mean().backward()
    optimizer.step()
    return optimizer


def test_everything_that_has_channels_shrinks_and_the_head_stays() -> None:
    net = small_net()
    report = gsprune.prune_step(net, 0.5, example_inputs=X)
    assert [tuple(p.shape) for p in net.parameters()] == [
        (4, 3, 3, 3), (4,), (4,), (4,), (8, 4, 3, 3), (8,), (6, 8 * 64), (6,), (5, 6), (5,),
    ]  # fmt: skip
    assert (net[0].out_channels, net[1].num_features, net[3].in_channels, net[6].in_features) == (4, 4, 4, 512)
    assert report.changed
    assert report.channel_sparsity == 0.5
    assert report.params_after == sum(p.numel() for p in net.parameters())


def test_parameters_hooks_flags_and_formats_stay() -> None:
    net = small_net().to(memory_format=torch.channels_last)
    net[3].weight.requires_grad_(False)
    calls: list[Any] = []
    net[3].register_forward_hook(lambda *args: calls.append(args))
    net[0].weight.register_hook(calls.append)
    net.train()
    net[1].eval()
    before = dict(net.named_parameters())
    gsprune.prune_step(net, 0.5, example_inputs=X)
    calls.clear()
    assert all(parameter is before[name] for name, parameter in net.named_parameters())
    assert not net[3].weight.requires_grad
    assert net.training
    assert not net[1].training
    assert net[3].weight.is_contiguous(memory_format=torch.channels_last)
    net(X).sum().backward()
    assert len(calls) == 2


def test_every_new_tensor_owns_its_storage() -> None:
    net = small_net()
    optimizer = trained(net)
    gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X)
    tensors = [*net.parameters(), *net.buffers(), *(p.grad for p in net.parameters())]
    tensors += [v for s in optimizer.state.values() for v in s.values()]
    for tensor in tensors:
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    assert len({t.untyped_storage().data_ptr() for t in tensors}) == len(tensors)


def test_gradients_and_moments_are_sliced_with_the_same_indices() -> None:
    net = small_net()
    optimizer = trained(net)
    grads = {name: p.grad.clone() for name, p in net.named_parameters()}
    moments = {name: optimizer.state[p]["exp_avg_sq"].clone() for name, p in net.named_parameters()}
    report = gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X)
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter.grad, report.slice(name, grads[name]))
        assert torch.equal(optimizer.state[parameter]["exp_avg_sq"], report.slice(name, moments[name]))
        assert optimizer.state[parameter]["step"] == 1


def test_a_loss_that_is_still_held_does_not_break_the_next_backward() -> None:
    net = small_net()
    optimizer = torch.optim.Adam(net.parameters())
    held = []
    for sparsity in (0.2, 0.4, 0.6):
        loss = net(X).square().mean()
        held.append(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gsprune.prune_step(net, sparsity, optimizer=optimizer, example_inputs=X)
    net(X).sum().backward()
    assert net[0].weight.shape[0] == 4


def test_pruning_between_forward_and_backward_is_an_error_at_backward() -> None:
    net = small_net()
    loss = net(X).square().mean()
    gsprune.prune_step(net, 0.5, example_inputs=X)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_view_that_a_user_holds_on_an_old_weight_is_never_overwritten() -> None:
    net = small_net()
    view = net[3].weight.detach()
    contents = view.clone()
    for i in range(1, 8):
        gsprune.prune_step(net, i / 10, example_inputs=X)
    assert torch.equal(view, contents)


def test_several_optimizers_and_parameter_groups_follow() -> None:
    net = small_net()
    first = torch.optim.Adam([{"params": net[0].parameters(), "lr": 1e-3}, {"params": net[3].parameters()}])
    second = torch.optim.SGD(net[6].parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(first, 2)
    for _ in range(2):
        net(X).square().mean().backward()
        first.step()
        second.step()
        scheduler.step()
        gsprune.prune_step(net, 0.5, optimizer=[first, second], example_inputs=X)
    assert second.state[net[6].weight]["momentum_buffer"].shape == net[6].weight.shape
    assert first.param_groups[0]["lr"] == pytest.approx(1e-4)


def test_a_dry_run_reports_the_same_and_changes_nothing() -> None:
    net = small_net()
    before = snapshot(net)
    before["state"] = True  # a trace is remembered
    dry = gsprune.prune_step(net, 0.5, example_inputs=X, dry_run=True)
    assert snapshot(net) == before
    wet = gsprune.prune_step(net, 0.5)
    assert dry.changed
    assert [g.removed.tolist() for g in dry.groups] == [g.removed.tolist() for g in wet.groups]
    assert dry.params_after == wet.params_after


@pytest.mark.parametrize("how", ["name", "glob", "module", "type"])
def test_an_ignored_layer_keeps_its_width(how: str) -> None:
    net = small_net()
    ignore: Any = {"name": "3", "glob": "[3]", "module": net[3], "type": nn.Conv2d}[how]
    gsprune.prune_step(net, 0.5, example_inputs=X, ignore=(ignore,))
    assert net[3].out_channels == 16
    assert net[0].out_channels == (8 if how == "type" else 4)
    assert net[6].out_features == 6


def test_widths_follow_the_semantics_of_rounding_and_minimum() -> None:
    net = small_net()
    gsprune.prune_step(net, 0.8, example_inputs=X, round_to=4, min_channels=4)
    assert (net[0].out_channels, net[3].out_channels, net[6].out_features) == (4, 4, 4)


def test_an_unreachable_request_warns_and_a_met_one_is_silent() -> None:
    net = nn.Linear(4, 3)
    with pytest.warns(PruneWarning, match="nothing of Linear can be removed"):
        report = gsprune.prune_step(net, 0.5, example_inputs=torch.randn(2, 4))
    assert not report.changed
    net = small_net()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gsprune.prune_step(net, 0.5, example_inputs=X)
        assert not gsprune.prune_step(net, 0.5).changed
        assert not gsprune.prune_step(net, 0.0).changed


def test_rescale_multiplies_by_the_ratio_of_norms() -> None:
    net = small_net()
    plain = copy.deepcopy(net)
    gsprune.prune_step(net, 0.5, example_inputs=X, rescale=True)
    dense = plain[8].weight.detach().clone()
    gsprune.prune_step(plain, 0.5, example_inputs=X)
    factor = dense.norm(dim=1) / plain[8].weight.norm(dim=1)
    assert (factor > 1).all()
    torch.testing.assert_close(net[8].weight, plain[8].weight * factor[:, None])
    torch.testing.assert_close(net[8].bias, plain[8].bias * factor)


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"sparsity": 1.0}, ValueError, r"`sparsity` must be in \[0, 1\)"),
    ({"sparsity": -0.1}, ValueError, r"`sparsity` must be in \[0, 1\)"),
    ({"sparsity": float("nan")}, ValueError, r"`sparsity` must be in \[0, 1\)"),
    ({"sparsity": "half"}, TypeError, "`sparsity` must be a number"),
    ({"sparsity": {"nothing": 0.5}}, ValueError, "matches no group"),
    ({"scope": "everywhere"}, ValueError, "`scope` must be one of"),
    ({"target": "flops"}, ValueError, "`target` must be one of"),
    ({"importance": "l3"}, ValueError, "l3"),
    ({"round_to": 0}, ValueError, "`round_to` must be at least 1"),
    ({"min_channels": 0}, ValueError, "`min_channels` must be at least 1"),
    ({"backend": "cuda"}, ValueError, "backend"),
    ({"ignore": ("no_such_layer",)}, ValueError, r"`ignore\[0\]` is 'no_such_layer'"),
    ({"ignore": (3,)}, TypeError, r"`ignore\[0\]` must be"),
    ({"optimizer": "adam"}, TypeError, "`optimizer` must be"),
    ({"optimizer": torch.optim.Adam(nn.Linear(2, 2).parameters())}, ValueError, "made for another model"),
    ({"followers": (nn.Linear(2, 2),)}, ValueError, r"`followers\[0\]` has no tensor"),
    ({"followers": ("net",)}, TypeError, r"`followers\[0\]` must be a torch.nn.Module, .* report.slice\(name, "),
    ({"example_inputs": torch.randn(2, 5, 8, 8)}, gsprune.TraceError, r"5, 8, 8"),
]


@pytest.mark.parametrize(
    ("bad", "error", "message"), BAD, ids=[f"{next(iter(b))}-{i}" for i, (b, _, _) in enumerate(BAD)]
)
def test_a_bad_argument_is_named_and_nothing_changes(bad: dict[str, Any], error: type[Exception], message: str) -> None:
    net = small_net()
    optimizer = trained(net)
    before = snapshot(net, optimizer)
    arguments = {"sparsity": 0.5, "optimizer": optimizer, "example_inputs": X, **bad}
    with pytest.raises(error, match=message):
        gsprune.prune_step(net, **arguments)
    assert snapshot(net, optimizer) == before


def test_a_follower_of_another_width_is_refused_with_the_first_difference() -> None:
    net = small_net()
    target = copy.deepcopy(net)
    gsprune.prune_step(net, 0.5, example_inputs=X)
    with pytest.raises(ValueError, match=r"'0.weight' has shape \(8, 3, 3, 3\), the model's has \(4, 3, 3, 3\)"):
        gsprune.prune_step(net, 0.7, followers=(target,))


def test_a_real_example_after_a_made_one_lets_macs_be_the_target() -> None:
    made = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    first = gsprune.prune_step(made, 0.25)
    with pytest.raises(ValueError, match="pass `example_inputs` of the real size"):
        gsprune.prune_step(made, 0.5, target="macs")
    report = gsprune.prune_step(made, 0.5, target="macs", example_inputs=torch.randn(3, 4))
    assert (first.groups[0].after, report.groups[0].initial) == (6, 8)
    assert report.mac_sparsity <= 0.5
    assert report.groups[0].after == 4


def test_a_parameter_that_the_user_has_replaced_is_the_one_that_is_pruned() -> None:
    net = small_net()
    gsprune.prune_step(net, 0.25, example_inputs=X)
    old = net[3].weight
    net[3].weight = nn.Parameter(torch.randn_like(old))
    gsprune.prune_step(net, 0.5)
    assert net[3].weight.shape == (8, 4, 3, 3)
    assert old.shape == (12, 6, 3, 3)
    net(X)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"min_channels": 6}, r"min_channels \(0\)"),
        ({"round_to": 8}, r"round_to \(0\)"),
        ({"ignore": ("0",)}, r"ignore \(0\)"),
        ({"scope": "global", "min_channels": 6}, r"min_channels \(0\)"),
        ({"target": "params", "min_channels": 6}, r"min_channels \(0\)"),
    ],
)
def test_a_request_that_limits_hold_back_says_which(options: dict[str, Any], cause: str) -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(2, 4)
    if "min_channels" in options:
        report = gsprune.prune_step(net, 0.9, example_inputs=x, **options)
        assert report.groups[0].after == 6
        assert report.shortfall is not None
        assert report.shortfall.causes == {"min_channels": ("0",)}
        assert "limited by min_channels (0)" in str(report)
    with pytest.warns(PruneWarning, match=f"nothing .*of Sequential can be removed.*{cause}"):
        assert not gsprune.prune_step(net, 0.9, example_inputs=x, **options).changed


def test_a_step_too_small_for_a_whole_multiple_is_silent_and_no_shortfall_remains_in_the_end() -> None:
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    x = torch.randn(2, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        early = gsprune.prune_step(net, 0.1, example_inputs=x, round_to=8)
        late = gsprune.prune_step(net, 0.5, round_to=8)
        kept = gsprune.prune_step(net, 0.5, ignore=("0",))  # reached already
    assert early.shortfall is not None
    assert not early.shortfall.final
    assert late.shortfall is None
    assert kept.shortfall is None


def test_a_warning_repeated_along_a_schedule_has_the_same_words() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    pruner = gsprune.Pruner(net, gsprune.schedules.Linear(0.9), ignore=("0",), example_inputs=torch.randn(2, 4))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for progress in (0.3, 0.5, 0.7, 0.9):
            pruner.step(progress)
    assert len(caught) == 4
    assert len({str(warning.message) for warning in caught}) == 1


def test_a_masked_network_that_cannot_run_is_no_failure() -> None:
    class Careful(nn.Module):
        """Refuses what is not finite, as distributions do; the removed channels' logarithm is not."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits = self.head(torch.log(self.first(x).abs()))
            return torch.distributions.Categorical(logits=logits).entropy()

    net = Careful()
    assert gsprune.prune_step(net, 0.5, example_inputs=torch.randn(2, 4)).changed


def test_everything_that_the_documents_name_is_there() -> None:
    root = Path(__file__).parents[2]
    pages = [root / "README.md", *(root / "docs").glob("*.md"), *(root / "examples").glob("*.py")]
    for page in pages:
        for name in set(re.findall(r"\bgsprune\.([a-zA-Z_]\w*)\b(?!\.py)", page.read_text())):
            found = hasattr(gsprune, name) or importlib.util.find_spec(f"gsprune.{name}") is not None
            assert found, f"{page.name} names gsprune.{name}"
    assert all(hasattr(gsprune, name) for name in gsprune.__all__)


class _Agent(nn.Module):
    """A network without a forward, whose call is the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def act(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


def _act(agent: _Agent, x: torch.Tensor) -> torch.Tensor:
    return agent.act(x)


@pytest.mark.parametrize("size", [4, 16])
def test_macs_are_those_of_the_latest_example(size: int) -> None:
    agent, batch = _Agent(), torch.randn(2, 3, 8, 8)
    gsprune.prune_step(agent, 0.25, example_inputs=batch, forward=_act)
    report = gsprune.prune_step(agent, 0.5, example_inputs=torch.randn(1, 3, size, size))
    assert report.macs_before == 9 * size * size * (3 * 6 + 6 * 6) + 6 * 2
    assert report.macs_after == 9 * size * size * (3 * 4 + 4 * 4) + 4 * 2
    assert [group.after for group in report.groups] == [4, 4]  # of the 8 that were seen first


def test_an_example_without_forward_keeps_the_stored_one() -> None:
    agent = _Agent()
    gsprune.prune_step(agent, 0.25, example_inputs=torch.randn(2, 3, 8, 8), forward=_act)
    report = gsprune.prune_step(agent, 0.5, example_inputs=torch.randn(2, 3, 8, 8), importance="activation")
    assert report.changed
    with pytest.raises(TypeError, match="`forward` must be callable"):
        gsprune.prune_step(agent, 0.75, forward=3)  # type: ignore[arg-type]
    assert gsprune.prune_step(agent, 0.75).changed
