"""A file brings back everything, or nothing."""

from __future__ import annotations

import copy
import json
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from snapshots import snapshot
from torch import Tensor, nn

import gsprune
from gsprune import CheckpointError
from gsprune.checkpoint.document import read_document, write_document
from gsprune.rewrite.session import session_of

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def net(width: int = 8, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 64, 12),
        nn.ReLU(),
        nn.Linear(12, 5),
    )


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 2) -> None:
    def closure() -> float:
        optimizer.zero_grad()
        loss = model(X).square().mean()
        loss.backward()
        return loss.item()

    for _ in range(steps):
        optimizer.step(closure)


def pruned_and_saved(path: Path, sparsity: float = 0.5, **metadata: Any) -> tuple[nn.Sequential, torch.optim.Adam]:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    train(model, optimizer)
    gsprune.prune_step(model, sparsity, optimizer=optimizer, example_inputs=X)
    train(model, optimizer)
    gsprune.save(model, path, optimizer=optimizer, **metadata)
    return model, optimizer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agent.safetensors"


def outputs(model: nn.Module) -> Tensor:
    model.eval()
    with torch.no_grad():
        result: Tensor = model(X)
    model.train()
    return result


# --- what comes back


def test_a_dense_model_becomes_the_saved_one_bitwise(file: Path) -> None:
    saved, _ = pruned_and_saved(file)
    loaded = net(seed=7)
    parameters = list(loaded.parameters())
    gsprune.load(file, into=loaded)
    assert torch.equal(outputs(loaded), outputs(saved))
    assert all(a is b for a, b in zip(parameters, loaded.parameters(), strict=True))
    assert (loaded[0].out_channels, loaded[1].num_features, loaded[6].in_features) == (4, 4, 8 * 64)
    assert all(p.untyped_storage().nbytes() == p.numel() * p.element_size() for p in loaded.parameters())


def test_training_and_pruning_go_on_as_if_never_interrupted(file: Path) -> None:
    saved, saved_optimizer = pruned_and_saved(file)
    loaded = net(seed=7)
    optimizer = torch.optim.Adam(loaded.parameters())
    gsprune.load(file, into=loaded, optimizer=optimizer)
    for model, its in ((saved, saved_optimizer), (loaded, optimizer)):
        train(model, its)
        report = gsprune.prune_step(model, 0.75, optimizer=its, example_inputs=X)
        assert [(group.before, group.after, group.initial) for group in report.groups] == [
            (4, 2, 8),
            (8, 4, 16),
            (6, 3, 12),
        ]
        train(model, its)
    assert torch.equal(outputs(loaded), outputs(saved))
    assert optimizer.param_groups[0]["lr"] == 1e-2


def test_a_file_can_be_saved_again_from_what_was_loaded(file: Path, tmp_path: Path) -> None:
    saved, _ = pruned_and_saved(file)
    again = tmp_path / "again.safetensors"
    first, second = net(seed=7), net(seed=8)
    gsprune.load(file, into=first)
    gsprune.save(first, again)
    gsprune.load(again, into=second)
    assert torch.equal(outputs(second), outputs(saved))
    assert not gsprune.prune_step(second, 0.5, example_inputs=X).changed


def test_a_model_of_the_file_s_widths_takes_its_contents(file: Path) -> None:
    saved, _ = pruned_and_saved(file)
    small = copy.deepcopy(saved)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    gsprune.load(file, into=small)
    assert torch.equal(outputs(small), outputs(saved))


def test_kept_indices_and_first_seen_widths_come_along(file: Path) -> None:
    saved, _ = pruned_and_saved(file)
    loaded = net(seed=7)
    gsprune.load(file, into=loaded)
    ours, theirs = session_of(loaded), session_of(saved)
    assert ours is not None
    assert theirs is not None
    assert ours.initial_widths == theirs.initial_widths
    assert {n: {a: i.tolist() for a, i in axes.items()} for n, axes in ours.kept.items()} == {
        n: {a: i.tolist() for a, i in axes.items()} for n, axes in theirs.kept.items()
    }


def test_groups_down_to_one_unit_still_count_after_loading(file: Path) -> None:
    model, loaded = net(), net(seed=7)
    gsprune.prune_step(model, {"6": 0.95, "0": 0.5}, example_inputs=X)
    gsprune.save(model, file)
    gsprune.load(file, into=loaded)
    for each in (model, loaded):
        report = gsprune.prune_step(each, 0.97, target="params", example_inputs=X)
        assert [(group.name, group.after, group.initial) for group in report.groups if group.name == "6"] == [
            ("6", 1, 12)
        ]
    assert torch.equal(outputs(loaded), outputs(model))


def test_a_model_that_was_never_pruned_is_saved_as_it_is(file: Path) -> None:
    model = net()
    gsprune.save(model, file)
    loaded = net(seed=7)
    assert gsprune.load(file, into=loaded) == {}
    assert torch.equal(outputs(loaded), outputs(model))
    assert gsprune.prune_step(loaded, 0.5, example_inputs=X).changed


def test_a_part_that_was_pruned_on_its_own_is_named_when_the_whole_is_saved(file: Path) -> None:
    whole = nn.ModuleDict({"online": net(), "target": net()})
    gsprune.prune_step(whole["online"], 0.5, followers=whole["target"], example_inputs=X)
    with pytest.warns(gsprune.PruneWarning, match="'online' was pruned on its own.* save the module that was passed"):
        gsprune.save(whole, file)
    gsprune.save(whole["online"], file)
    whole = nn.ModuleDict({"online": net(), "target": net()})
    pair = [(whole["target"], whole["online"])]
    gsprune.prune_step(whole, 0.5, followers=pair, example_inputs=(X,), forward=lambda whole, x: whole["online"](x))
    gsprune.save(whole, file)
    dense = nn.ModuleDict({"online": net(seed=1), "target": net(seed=2)})
    gsprune.load(file, into=dense)
    assert torch.equal(outputs(dense["target"]), outputs(whole["target"]))


def test_deepcopies_and_pickles_of_a_loaded_model_prune_on(file: Path) -> None:
    pruned_and_saved(file)
    loaded = net(seed=7)
    gsprune.load(file, into=loaded)
    for twin in (copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        assert not gsprune.prune_step(twin, 0.5, example_inputs=X).changed
        assert gsprune.prune_step(twin, 0.75).changed


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "SGD without state": lambda p: torch.optim.SGD(p, lr=0.01),
    "Adam amsgrad": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01), amsgrad=True, foreach=False),
    "AdamW": torch.optim.AdamW,
    "RMSprop": lambda p: torch.optim.RMSprop(p, momentum=0.5, centered=True),
    "Adagrad": torch.optim.Adagrad,
    "Adadelta": torch.optim.Adadelta,
    "Rprop": torch.optim.Rprop,
    "Adamax": torch.optim.Adamax,
    "ASGD": torch.optim.ASGD,
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "Adafactor": torch.optim.Adafactor,
    "LBFGS": lambda p: torch.optim.LBFGS(p, max_iter=3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_s_state_comes_back_bitwise(name: str, file: Path) -> None:
    model, loaded = net(), net(seed=7)
    optimizer, other = OPTIMIZERS[name](model.parameters()), OPTIMIZERS[name](loaded.parameters())
    train(model, optimizer)
    gsprune.prune_step(model, 0.5, optimizer=optimizer, example_inputs=X)
    train(model, optimizer)
    gsprune.save(model, file, optimizer=optimizer)
    gsprune.load(file, into=loaded, optimizer=other)
    for each, its in ((model, optimizer), (loaded, other)):
        train(each, its)
    assert snapshot_of(other) == snapshot_of(optimizer)
    assert torch.equal(outputs(loaded), outputs(model))


def snapshot_of(optimizer: torch.optim.Optimizer) -> str:
    torch.set_printoptions(precision=9, threshold=10**6)
    try:
        return repr(optimizer.state_dict())
    finally:
        torch.set_printoptions(profile="default")


def test_several_optimizers_and_parameter_groups(file: Path) -> None:
    def optimizers_of(model: nn.Sequential) -> list[torch.optim.Optimizer]:
        groups = [{"params": list(model[:4].parameters()), "lr": 0.1}, {"params": list(model[6].parameters())}]
        return [torch.optim.Adam(groups), torch.optim.SGD(model[8].parameters(), lr=0.1, momentum=0.9)]

    model, loaded = net(), net(seed=7)
    saved, other = optimizers_of(model), optimizers_of(loaded)
    for optimizer in saved:
        train(model, optimizer)
    gsprune.save(model, file, optimizer=saved)
    gsprune.load(file, into=loaded, optimizer=other)
    assert [snapshot_of(each) for each in other] == [snapshot_of(each) for each in saved]


class Wrapper:
    """An optimizer around another, as accelerate and schedulefree have them: its state and groups are properties."""

    def __init__(self, base: torch.optim.Optimizer, key: str | None) -> None:
        self.base, self.key = base, key

    @property
    def state(self) -> Any:
        return self.base.state

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.base.param_groups

    def state_dict(self) -> dict[str, Any]:
        return self.base.state_dict() if self.key is None else {self.key: self.base.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.base.load_state_dict(state if self.key is None else state[self.key])

    def step(self, closure: Any = None) -> Any:
        return self.base.step(closure)

    def zero_grad(self) -> None:
        self.base.zero_grad()


@pytest.mark.parametrize("key", [None, "base"])
def test_a_wrapped_optimizer_s_state_comes_back_or_nothing_changes(
    key: str | None, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrapped(model: nn.Module) -> Any:
        return Wrapper(torch.optim.Adam(model.parameters(), lr=1e-2), key)

    model, loaded = net(), net(seed=7)
    optimizer, other = wrapped(model), wrapped(loaded)
    train(model, optimizer)
    gsprune.prune_step(model, 0.5, optimizer=optimizer, example_inputs=X)
    gsprune.save(model, file, optimizer=optimizer)
    train(loaded, other)
    before = snapshot(loaded, other.base)
    load_state_dict = Wrapper.load_state_dict

    def failing(self: Wrapper, state: dict[str, Any]) -> None:
        load_state_dict(self, state)
        raise RuntimeError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(Wrapper, "load_state_dict", failing)
        with pytest.raises(RuntimeError, match="injected"):
            gsprune.load(file, into=loaded, optimizer=other)
    assert snapshot(loaded, other.base) == before

    gsprune.load(file, into=loaded, optimizer=other)
    for each, its in ((model, optimizer), (loaded, other)):
        train(each, its)
    assert snapshot_of(other) == snapshot_of(optimizer)
    assert torch.equal(outputs(loaded), outputs(model))


def test_metadata_comes_back_in_kind(file: Path) -> None:
    metadata = {
        "step": 3,
        "score": 0.1,
        "best": float("-inf"),
        "name": "ünïcode",
        "flag": True,
        "nothing": None,
        "nested": {"list": [1, (2, "x")], 5: {"a": False}, "5": "five"},
        "state": (torch.arange(3, dtype=torch.int16), torch.zeros(0)),
    }
    gsprune.save(net(), file, **metadata)
    loaded = gsprune.load(file, into=net())
    assert torch.equal(loaded["state"][0], metadata["state"][0])  # type: ignore[index]
    assert loaded["state"][1].shape == (0,)
    del loaded["state"], metadata["state"]
    assert loaded == metadata


def test_the_pruner_s_state_is_metadata(file: Path) -> None:
    model = net()
    schedule = gsprune.schedules.Linear(0.5, 0.0, 1.0)
    pruner = gsprune.Pruner(model, schedule, importance="random", example_inputs=X)
    pruner.step(0.5)
    gsprune.save(model, file, pruner=pruner.state_dict())
    loaded = net(seed=7)
    resumed = gsprune.Pruner(loaded, schedule, importance="random", example_inputs=X)
    resumed.load_state_dict(gsprune.load(file, into=loaded)["pruner"])
    assert [group.removed.tolist() for group in resumed.step(1.0).groups] == [
        group.removed.tolist() for group in pruner.step(1.0).groups
    ]
    assert torch.equal(outputs(loaded), outputs(model))


def test_memory_formats_are_kept_and_the_file_is_contiguous(file: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 3)).to(
        memory_format=torch.channels_last
    )
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer)
    gsprune.save(model, file, optimizer=optimizer)
    loaded = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 3))
    other = torch.optim.Adam(loaded.parameters())
    gsprune.load(file, into=loaded, optimizer=other)
    assert [p.stride() for p in loaded.parameters()] == [p.stride() for p in model.parameters()]
    assert other.state[loaded[0].weight]["exp_avg"].is_contiguous(memory_format=torch.channels_last)
    with safe_open(file, "pt") as tensors:
        assert torch.equal(tensors.get_tensor("tensors/0.weight"), model[0].weight.detach().contiguous())


class Tied(nn.Module):
    """Tied weights, a buffer outside the state_dict, and frozen parts."""

    def __init__(self, tie: bool = True) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8, bias=False)
        self.hidden = nn.Linear(8, 8)
        self.out = nn.Linear(6, 8, bias=False)
        if tie:
            self.out.weight = self.embed.weight
        self.register_buffer("scale", torch.full((8,), 2.0), persistent=False)
        self.hidden.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.hidden(self.embed(x) * self.scale)) @ self.out.weight


def test_ties_are_written_once_and_stay(file: Path) -> None:
    model = Tied()
    gsprune.prune_step(model, 0.5, example_inputs=torch.randn(2, 6))
    gsprune.save(model, file)
    with safe_open(file, "pt") as tensors:
        names = {name for name in tensors.keys() if name.startswith("tensors/")}  # noqa: SIM118
    assert names == {"tensors/embed.weight", "tensors/hidden.weight", "tensors/hidden.bias"}
    loaded = Tied()
    gsprune.load(file, into=loaded)
    assert loaded.out.weight is loaded.embed.weight
    assert not loaded.hidden.weight.requires_grad
    x = torch.randn(3, 6)
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes_are_kept(dtype: torch.dtype, file: Path) -> None:
    model = net().to(dtype)
    gsprune.save(model, file)
    loaded = net(seed=7).to(dtype)
    gsprune.load(file, into=loaded)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


# --- what is refused


def fails_and_changes_nothing(file: Path, into: nn.Module, message: str, optimizer: Any = None) -> None:
    before = snapshot(into, *([] if optimizer is None else [optimizer]))
    with pytest.raises(CheckpointError, match=message):
        gsprune.load(file, into=into, optimizer=optimizer)
    assert snapshot(into, *([] if optimizer is None else [optimizer])) == before


def test_another_architecture_is_refused_with_the_first_difference(file: Path) -> None:
    pruned_and_saved(file)
    fails_and_changes_nothing(
        file, net(width=9), r"'0\.weight' has shape \(8, .* \(pruned to \(4, .*and \(9, 3, 3, 3\)"
    )
    fails_and_changes_nothing(file, net()[:8], r"the file has '8\.weight', but the model does not")
    fails_and_changes_nothing(file, nn.Sequential(*net(), nn.Linear(5, 5)), r"the model has '9\.weight', but the file")
    fails_and_changes_nothing(file, net().double(), r"'0\.weight' is torch\.float32 in the file and torch\.float64 in")


def test_other_ties_are_refused(file: Path) -> None:
    gsprune.save(Tied(), file)
    fails_and_changes_nothing(file, Tied(tie=False), r"the model has 'out\.weight'")
    gsprune.save(Tied(tie=False), file)
    fails_and_changes_nothing(file, Tied(), r"the file has 'out\.weight'")


def test_a_model_pruned_to_other_widths_is_refused(file: Path) -> None:
    pruned_and_saved(file)
    other = net()
    gsprune.prune_step(other, 0.25, example_inputs=X)
    fails_and_changes_nothing(file, other, r"'0\.weight' has shape \(8, 3, 3, 3\) \(pruned to \(4, 3, 3, 3\)\)")


def test_other_optimizers_are_refused(file: Path) -> None:
    pruned_and_saved(file)
    model = net(seed=7)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    fails_and_changes_nothing(file, model, "holds the state of Adam, got a SGD", sgd)
    fewer = torch.optim.Adam(model[0].parameters())
    fails_and_changes_nothing(file, model, r"groups of \[10\] parameters, got groups of \[2\]", fewer)
    pair = [torch.optim.Adam(model.parameters()), sgd]
    with pytest.raises(CheckpointError, match="holds 1 optimizers, got 2"):
        gsprune.load(file, into=model, optimizer=pair)


def test_a_failure_while_loading_takes_everything_back(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned_and_saved(file)
    for error in (RuntimeError, KeyboardInterrupt, MemoryError):
        model = net(seed=7)
        optimizer = torch.optim.Adam(model.parameters())
        train(model, optimizer)
        before = snapshot(model, optimizer)
        load_state_dict = torch.optim.Adam.load_state_dict

        def failing(self: torch.optim.Adam, state: Any, error: type = error, load: Any = load_state_dict) -> None:
            load(self, state)
            raise error("injected")

        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.Adam, "load_state_dict", failing)
            with pytest.raises(error, match="injected"):
                gsprune.load(file, into=model, optimizer=optimizer)
        assert snapshot(model, optimizer) == before


def test_a_sparse_gradient_of_a_dense_model_is_refused(file: Path) -> None:
    def embedding() -> nn.Sequential:
        return nn.Sequential(nn.Embedding(8, 6, sparse=True), nn.Linear(6, 4))

    words = torch.tensor([1, 2])
    small, dense = embedding(), embedding()
    gsprune.prune_step(small, 0.5, example_inputs=words)
    gsprune.save(small, file)
    dense(words).sum().backward()
    with pytest.raises(
        gsprune.RewriteError, match=r"gradient of '0\.weight' is torch\.sparse_coo .*zero_grad\(\) first"
    ):
        gsprune.load(file, into=dense)
    dense.zero_grad()
    gsprune.load(file, into=dense)
    assert dense[0].weight.shape == (8, 3)


def test_a_foreign_file_is_refused(file: Path) -> None:
    from safetensors.torch import save_file

    save_file({"0.weight": torch.zeros(2)}, file)
    fails_and_changes_nothing(file, net(), r"was not written by gsprune\.save")
    torch.save(net().state_dict(), file)
    fails_and_changes_nothing(file, net(), "no checkpoint, or a damaged one")
    file.write_bytes(b"")
    fails_and_changes_nothing(file, net(), "no checkpoint")


def test_a_newer_format_says_so(file: Path) -> None:
    gsprune.save(net(), file)
    data = file.read_bytes()
    file.write_bytes(data.replace(b'"gsprune_format":"1"', b'"gsprune_format":"2"'))
    fails_and_changes_nothing(file, net(), "of checkpoint format 2, this version of gsprune reads 1")


def test_a_checksum_of_its_own_does_not_make_an_incomplete_file_a_checkpoint(file: Path) -> None:
    write_document(file, {"tensors": {}})
    fails_and_changes_nothing(file, net(), "lacks a part")


def test_what_a_file_cannot_hold_is_named_and_nothing_is_written(file: Path) -> None:
    with pytest.raises(TypeError, match=r"'metadata/run/1', a PosixPath"):
        gsprune.save(net(), file, run=[1, Path("x")])
    with pytest.raises(TypeError, match="keys that are strings or integers"):
        gsprune.save(net(), file, run={(1, 2): 3})
    with pytest.raises(TypeError, match=r"'metadata/sparse' is torch\.sparse_coo"):
        gsprune.save(net(), file, sparse=torch.eye(2).to_sparse())
    with pytest.raises(TypeError, match=r"`model` must be a torch\.nn\.Module, got dict"):
        gsprune.save({}, file)  # type: ignore[arg-type]
    assert not list(file.parent.iterdir())


class Extra(nn.Linear):
    def get_extra_state(self) -> Any:
        return {"a": 1}


def test_an_extra_state_is_refused(file: Path) -> None:
    with pytest.raises(TypeError, match="'0' has an extra state"):
        gsprune.save(nn.Sequential(Extra(2, 2)), file)


# --- the file itself


def test_a_failed_write_leaves_the_old_file_and_no_other(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gsprune.save(net(), file, version=1)

    def failing(descriptor: int) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(OSError, match="no space left"):
            gsprune.save(net(), file, version=2)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert gsprune.load(file, into=net()) == {"version": 1}


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        gsprune.save(net(), tmp_path / "nowhere" / "file")
    with pytest.raises(FileNotFoundError):
        gsprune.load(tmp_path / "nowhere", into=net())


def test_the_file_is_small_and_readable_without_gsprune(file: Path) -> None:
    model, _ = pruned_and_saved(file, sparsity=0.75)
    numbers = sum(p.numel() for p in model.parameters())
    assert file.stat().st_size < 3 * 4 * numbers + 20_000  # weights and two moments, and a header
    with safe_open(file, "pt") as tensors:
        document = json.loads(tensors.metadata()["gsprune"])
    assert [key for key, _ in document["items"]] == [
        "tensors",
        "layout",
        "aliases",
        "pruning",
        "optimizers",
        "metadata",
    ]


def test_a_torch_compiled_model_is_saved_as_the_model_inside(file: Path) -> None:
    model = net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(model)
    gsprune.save(compiled, file)
    loaded = net(seed=7)
    gsprune.load(file, into=loaded)
    assert torch.equal(outputs(loaded), outputs(model))


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(-9, 9), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(document=st.dictionaries(st.text(max_size=5), documents, max_size=4))
def test_a_document_comes_back_as_it_was(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("document") / "file"
    write_document(file, document)
    assert repr(read_document(file)) == repr(document)
