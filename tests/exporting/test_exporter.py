"""`gsprune.export`: what is written computes what the network does, or nothing is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gsprune
from gsprune.errors import ExportError, install_command
from gsprune.exporting import export as export_module_function
from gsprune.exporting.comparison import cause_of
from gsprune.networks import ActorCritic, build_encoder, example_frames

EXTRA = f"the extra 'export' is not installed: {install_command('export')}"


class TwoInputs(nn.Module):
    """A network of two inputs, one by name, with dropout, and two outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.head = nn.Linear(6, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, scale: Tensor) -> dict[str, Tensor]:
        hidden = self.dropout(torch.relu(self.linear(x)) * scale)
        return {"scores": self.head(hidden), "features": hidden}


def folder_contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_public_name_is_the_function() -> None:
    assert gsprune.export is export_module_function


def test_a_pruned_policy_is_exported_as_onnx_with_its_contract(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason=EXTRA)
    runtime = pytest.importorskip("onnxruntime", reason=EXTRA)
    torch.manual_seed(0)
    agent = ActorCritic(build_encoder("impoola", 1), 15).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    gsprune.prune_step(agent, 0.5, example_inputs=example_frames())
    before, mode = deepcopy(agent.state_dict()), agent.training
    frames = torch.randint(0, 256, (7, 64, 64, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    report = gsprune.export(
        agent,
        tmp_path / "new" / "policy.onnx",
        example_frames(),
        forward=lambda network, frames: network(frames)[0],
        output_names=["logits"],
        check_inputs=frames,
        contract={"game": "bigfish"},
    )
    assert folder_contents(tmp_path / "new") == ["policy.onnx", "policy.onnx.json"]
    assert (report.comparison.examples, report.comparison.same_choice) == (7, 7)
    assert report.comparison.max_abs_diff < 1e-5
    assert agent.training == mode
    assert all(torch.equal(value, before[name]) for name, value in agent.state_dict().items())

    session = runtime.InferenceSession(str(report.path), providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("frames", "tensor(uint8)", ["batch", 3, 64, 64])
    ]
    (logits,) = session.run(["logits"], {"frames": frames.contiguous().numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, agent(frames)[0].numpy(), atol=1e-5)
    assert b"/gsprune/" not in report.path.read_bytes()  # no paths of the exporting machine

    contract = json.loads(report.contract.read_text())
    assert contract["inputs"] == [{"name": "frames", "shape": ["batch", 3, 64, 64], "dtype": "uint8"}]
    assert contract["outputs"] == [{"name": "logits", "shape": ["batch", 15], "dtype": "float32"}]
    assert contract["file"]["sha256"] == hashlib.sha256(report.path.read_bytes()).hexdigest()
    assert contract["network"]["widths"]["encoder.linear"] == 128
    assert contract["network"]["initial_widths"]["encoder.linear"] == 256
    assert contract["check"]["same_choice"] == 7
    assert contract["game"] == "bigfish"


def test_any_network_becomes_a_program_of_torch_with_named_inputs_and_every_output(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TwoInputs()
    inputs = {"x": torch.randn(5, 4), "scale": torch.rand(5, 1)}
    model.linear.weight.data = model.linear.weight.data.t().contiguous().t()
    report = gsprune.export(model, tmp_path / "net.pt2", inputs)
    assert model.training  # dropout was off in the copy alone
    contract = json.loads(report.contract.read_text())
    assert [(i["name"], i["shape"]) for i in contract["inputs"]] == [("x", ["batch", 4]), ("scale", ["batch", 1])]
    assert [o["name"] for o in contract["outputs"]] == ["output_0", "output_1"]
    program = torch.export.load(str(report.path)).module()
    assert all(tensor.is_contiguous() for tensor in program.state_dict().values())
    expected = model.eval()(**inputs)
    for got, one in zip(program(inputs["x"], inputs["scale"]), expected.values(), strict=True):
        torch.testing.assert_close(got, one)


def test_a_fixed_batch_is_that_of_the_example(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    report = gsprune.export(model, tmp_path / "net.pt2", torch.randn(1, 4), dynamic_batch=False)
    assert json.loads(report.contract.read_text())["inputs"][0]["shape"] == [1, 4]
    with pytest.raises(Exception, match=r"."):
        torch.export.load(str(report.path)).module()(torch.randn(2, 4))


def test_an_export_that_computes_something_else_leaves_no_file_and_an_older_one_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Linear(4, 3)
    gsprune.export(model, tmp_path / "net.pt2", torch.randn(2, 4))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def wrong(call: Any, file: Path, *options: Any) -> Any:
        file.write_bytes(b"wrong")

        def run(inputs: Sequence[Tensor]) -> list[Any]:
            return [output.numpy() + np.float32(1) for output in call(inputs)]

        return run

    monkeypatch.setattr("gsprune.exporting.exporter._write_program", wrong)
    for name in ("net.pt2", "other.pt2"):
        with pytest.raises(ExportError, match=r"differs from the network's by 1.00e"):
            gsprune.export(model, tmp_path / name, torch.randn(2, 4))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class BranchesOnData(nn.Module):
    """Control flow that no exporter can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return x if bool(x.sum() > 0) else -x


def test_a_network_that_cannot_be_exported_is_an_error_that_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be exported as torch"):
        gsprune.export(BranchesOnData(), tmp_path / "net.pt2", torch.randn(2, 4))
    assert folder_contents(tmp_path) == []


class FixedBatch(nn.Module):
    """A network that works for batches of its example alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 4) * 2


def test_a_batch_written_into_the_code_needs_a_fixed_batch(tmp_path: Path) -> None:
    with pytest.raises(ExportError):
        gsprune.export(FixedBatch(), tmp_path / "net.pt2", torch.randn(2, 4))
    gsprune.export(FixedBatch(), tmp_path / "net.pt2", torch.randn(2, 4), dynamic_batch=False)


class FailsForOne(nn.Module):
    """A network that works for batches of two and more examples."""

    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze().sum(1)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            FailsForOne(),
            r"with a batch of 1: the network fails: IndexError: .*; fix the batch by `dynamic_batch=False`",
        ),
        (FixedBatch(), r"cannot be exported as torch: \w+: .*batch"),
    ],
)
def test_an_error_names_its_cause_in_one_line(network: nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message) as error:
        gsprune.export(network, tmp_path / "net.pt2", torch.randn(2, 4))
    assert len(str(error.value).splitlines()) == 1
    assert folder_contents(tmp_path) == []


def test_the_cause_of_an_error_has_no_colours() -> None:
    error = RuntimeError("failed")
    error.__cause__ = ValueError("\x1b[96mStep 3/3\x1b[0m has no rule\nSee the trace")
    assert cause_of(error) == "ValueError: Step 3/3 has no rule"


@pytest.mark.parametrize(
    ("path", "inputs", "options", "error", "message"),
    [
        ("net.bin", torch.ones(1, 4), {}, ValueError, "`path` must end in .onnx or .pt2"),
        ("net.bin", torch.ones(1, 4), {"format": "tflite"}, ValueError, "`format` must be 'onnx' or 'torch'"),
        ("net.pt2", torch.ones(1, 4), {"tolerance": 0.0}, ValueError, "`tolerance` must be above 0"),
        ("net.pt2", (torch.ones(1, 4), 3), {}, TypeError, "`example_inputs` must contain only tensors"),
        ("net.pt2", torch.ones(1, 4), {"output_names": ["a", "b"]}, ValueError, "`output_names` must be 1 different"),
        ("net.pt2", torch.ones(0, 4), {}, ValueError, "`dynamic_batch` needs inputs with one common .*`--batch 1`"),
        (
            "net.pt2",
            torch.ones(1, 4),
            {"contract": {"a": object()}},
            TypeError,
            "`contract` must hold only JSON.*object",
        ),
        ("net.pt2", torch.ones(1, 4), {"contract": [1]}, TypeError, "`contract` must be a mapping.*got list"),
        ("net.pt2", torch.ones(1, 4), {"tolerance": "a"}, TypeError, "`tolerance` must be a number, got 'a'"),
        ("net.pt2", torch.ones(1, 4), {"dynamic_batch": "no"}, TypeError, "`dynamic_batch` must be True or False"),
        ("net.pt2", torch.ones(1, 4), {"forward": 3}, TypeError, "`forward` must be callable.*got 3"),
        ("net.pt2", torch.ones(1, 4), {"input_names": "x"}, TypeError, "`input_names` must be a list of names"),
        ("net.pt2", torch.ones(1, 5), {}, ValueError, r"`example_inputs` must be.*Linear takes.*\(1, 5\).*pass inputs"),
        (
            "net.pt2",
            {"x": torch.ones(1, 4)},
            {},
            ValueError,
            "`example_inputs` must be.*unexpected keyword argument 'x'",
        ),
        ("", torch.ones(1, 4), {"format": "onnx"}, ValueError, "`path` must be a file, got the folder"),
        *[
            ("net.pt2", torch.ones(1, 4), {"check_inputs": checks}, error, f"`check_inputs` must {message}")
            for checks, error, message in [
                (torch.ones(3, 5), ValueError, r"be torch.float32 \(n, 4\) for 'input'.*got torch.float32 \(3, 5\)"),
                (torch.ones(3, 4, dtype=torch.long), ValueError, "be torch.float32.*got torch.int64"),
                (torch.ones(0, 4), ValueError, "hold at least one example"),
                (
                    (torch.ones(3, 4), torch.ones(3, 4)),
                    ValueError,
                    "have the inputs of.*1 by position; got 2 by position",
                ),
                ((3,), TypeError, "contain only tensors, got int"),
                ("x", TypeError, "be a tensor, a tuple.*got str"),
            ]
        ],
    ],
)
def test_a_bad_argument_is_named_before_anything_is_written(
    tmp_path: Path, path: str, inputs: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        gsprune.export(nn.Linear(4, 3), tmp_path / path, inputs, **options)
    assert folder_contents(tmp_path) == []


def test_a_file_in_the_way_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"`path` must lie in a folder that can be made, got .*net.pt2"):
        gsprune.export(nn.Linear(4, 3), tmp_path / "file" / "net.pt2", torch.ones(1, 4))


class Difference(nn.Module):
    """Of two named inputs, whose order matters."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - 2 * b[:, :4]


def test_inputs_to_check_on_are_told_apart_by_name(tmp_path: Path) -> None:
    inputs = {"a": torch.randn(2, 4), "b": torch.randn(2, 5)}
    checks = {"b": torch.randn(3, 5), "a": torch.randn(3, 4)}
    assert gsprune.export(Difference(), tmp_path / "n.pt2", inputs, check_inputs=checks).comparison.examples == 3


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(gsprune.MissingExtraError, match=r"pip install -c constraints.txt \'\.\[export\]\'"):
        gsprune.export(nn.Linear(4, 3), tmp_path / "net.onnx", torch.ones(1, 4))
    assert folder_contents(tmp_path) == []
