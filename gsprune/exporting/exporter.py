"""`gsprune.export`: writes a network as an ONNX file or a PyTorch program, after a check of its outputs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from gsprune.checks import check_flag, check_number
from gsprune.engines.latency import with_batch
from gsprune.engines.onnxruntime import load_onnx
from gsprune.engines.portable_call import PortableCall, portable_call
from gsprune.engines.suppress_warnings import suppress_warnings
from gsprune.errors import ExportError, GspruneError
from gsprune.exporting.check_inputs import check_tensors
from gsprune.exporting.comparison import Comparison, Exported, cause_of, compare
from gsprune.exporting.contract import call_entry, check_entry, contract_path, encoded, file_entry, network_entry
from gsprune.tracing.example import as_example

__all__ = ["ExportReport", "Format", "export", "onnx_runner"]

Format = Literal["onnx", "torch"]

_SUFFIXES: Mapping[str, Format] = {".onnx": "onnx", ".pt2": "torch"}
_CPU = torch.device("cpu")
# Exporters fix axes of length 1, and treat axes of equal length as one dimension.
_BATCH_OF_EXPORT = 2
_OTHER_BATCHES = (1, 3)
_FIXED_BATCH = "fix the batch by `dynamic_batch=False`, or by `--batch 1` of `gsprune export`"
_CHECKED_AT_ONCE = 100


@dataclass(frozen=True)
class ExportReport:
    """The files of an export, and the comparison of outputs.

    Attributes:
        path: the exported file.
        contract: the JSON file next to it.
        format: "onnx" or "torch".
        size: bytes of the exported file.
        comparison: the comparison of its outputs with the network's.
    """

    path: Path
    contract: Path
    format: Format
    size: int
    comparison: Comparison

    def __str__(self) -> str:
        found = self.comparison
        choices = "" if found.same_choice is None else f", the same choice in {found.same_choice}"
        return (
            f"{self.path} ({self.size / 1e3:,.0f} kB, {self.format}): on {found.examples} examples the outputs differ"
            f" by at most {found.max_abs_diff:.1e}{choices}; contract in {self.contract}"
        )


def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    example_inputs: Any,
    *,
    format: Format | None = None,
    forward: Callable[..., Any] | None = None,
    dynamic_batch: bool = True,
    check_inputs: Any = None,
    tolerance: float = 1e-5,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    contract: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Write a network for deployment, with a JSON contract next to it.

    The exported network is loaded and run (by ONNX Runtime or PyTorch), and its outputs are compared with the
    network's, before `path` is written. On failure no file is written, and an existing one is kept. The network is not
    changed: a copy in eval mode on the CPU is exported.

    Args:
        model: any module, dense or pruned.
        path: the file, ``.onnx`` or ``.pt2``. The contract has the same name with ``.json`` appended.
        example_inputs: tensor, tuple of positional inputs or dict of inputs by name; tensors only.
        format: "onnx", or "torch" for `torch.export`; None chooses by the suffix.
        forward: callable(model, *example_inputs) -> outputs, e.g. ``lambda agent, x: agent(x)[0]`` for the policy
            alone; None calls the model.
        dynamic_batch: make the first axis of all inputs dynamic; False fixes it to the example's length.
        check_inputs: inputs for the comparison, with any number of examples; None uses `example_inputs`.
        tolerance: the largest allowed difference of outputs, relative to the largest output if that is above 1.
        input_names: names of the inputs in the file; None uses the names of the called function's parameters.
        output_names: names of the outputs in the file; None uses "output", or "output_0" and so on.
        contract: JSON values to add to the contract.

    Returns:
        the files and the comparison.

    Raises:
        ValueError: the format is unknown, a number or a name is invalid, `path` cannot be written, or the network fails
            on the inputs.
        TypeError: an argument has a wrong type, an input is not a tensor, or `contract` is not JSON.
        ExportError: the network cannot be exported, or the exported network has other outputs.
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
    """
    target = _target(path)
    chosen = _format(target, format)
    _check_options(tolerance, dynamic_batch, contract)

    def call_on(inputs: Any) -> PortableCall:
        return portable_call(model, inputs, forward, input_names, output_names)

    call = _call_with_export_batch(call_on, example_inputs) if dynamic_batch else call_on(example_inputs)
    checks = (
        call.inputs if check_inputs is None else check_tensors(check_inputs, as_example(example_inputs, None), call)
    )
    chunk_size = _CHECKED_AT_ONCE
    if not dynamic_batch:
        chunk_size, checks = _whole_batches(call, checks)
    entries = {
        **call_entry(call, dynamic_batch),
        "network": network_entry(model, example_inputs, forward),
        **dict(contract or {}),
    }
    encoded(entries)  # raises before the work begins if the contract is not JSON
    _make_folder(target)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
        file = Path(folder) / target.name
        runner = _write(call, file, chosen, dynamic_batch)
        comparison = compare(call, runner, checks, tolerance, chunk_size)
        if dynamic_batch:
            _check_batches(call, runner, tolerance)
        entries = {
            "format": chosen,
            "file": file_entry(file, target.name),
            **entries,
            "check": check_entry(comparison, "PyTorch"),
        }
        document = contract_path(file)
        document.write_bytes(encoded(entries))
        size = file.stat().st_size
        document.replace(contract_path(target))
        file.replace(target)
    return ExportReport(target, contract_path(target), chosen, size, comparison)


def onnx_runner(path: Path, input_names: Sequence[str]) -> Exported:
    """An ONNX file as a function of tensors, run by ONNX Runtime with one thread."""
    network = load_onnx(path)
    return lambda inputs: network(
        {name: value.contiguous().numpy() for name, value in zip(input_names, inputs, strict=True)}
    )


def _target(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"`path` must be the file to write, got {path!r}")
    target = Path(path)
    if target.is_dir():
        raise ValueError(
            f"`path` must be a file, got the folder {str(target)!r}; add a name that ends in .onnx or .pt2"
        )
    return target


def _make_folder(target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"`path` must lie in a folder that can be made, got {str(target)!r} ({error.strerror}); choose another"
        ) from error


def _check_options(tolerance: Any, dynamic_batch: Any, contract: Any) -> None:
    check_number("tolerance", tolerance, above=0)
    check_flag("dynamic_batch", dynamic_batch)
    if contract is not None and not isinstance(contract, Mapping):
        raise TypeError(f"`contract` must be a mapping of names to JSON values, got {type(contract).__name__}")


def _call_with_export_batch(call_on: Callable[[Any], PortableCall], example_inputs: Any) -> PortableCall:
    """The call with a batch of `_BATCH_OF_EXPORT` instead of the example's."""
    inputs = _inputs_with_batch(example_inputs, _BATCH_OF_EXPORT)
    try:
        return call_on(inputs)
    except ValueError as error:
        call_on(example_inputs)  # raises if the example itself is invalid
        raise ExportError(f"with a batch of {_BATCH_OF_EXPORT}: {error}; {_FIXED_BATCH}") from error


def _format(path: Path, chosen: str | None) -> Format:
    if chosen is None:
        if path.suffix not in _SUFFIXES:
            raise ValueError(f"`path` must end in .onnx or .pt2, or pass `format`; got {str(path)!r}")
        return _SUFFIXES[path.suffix]
    if chosen not in get_args(Format):
        raise ValueError(f"`format` must be 'onnx' or 'torch', got {chosen!r}")
    return "onnx" if chosen == "onnx" else "torch"


def _write(call: PortableCall, file: Path, chosen: Format, dynamic_batch: bool) -> Exported:
    """Write the file and load it again."""
    try:
        if chosen == "onnx":
            call.write_onnx(file, dynamic_batch)
            return onnx_runner(file, call.input_names)
        return _write_program(call, file, dynamic_batch)
    except (GspruneError, OSError, MemoryError):
        raise
    except Exception as error:
        raise ExportError(f"the network cannot be exported as {chosen}: {cause_of(error)}") from error


def _write_program(call: PortableCall, file: Path, dynamic_batch: bool) -> Exported:
    shapes = {"inputs": tuple({0: torch.export.Dim("batch")} for _ in call.inputs)} if dynamic_batch else None
    with suppress_warnings(), torch.no_grad():
        program = torch.export.export(call.module, call.inputs, dynamic_shapes=shapes, strict=False)
        torch.export.save(program, str(file))
        module = torch.export.load(str(file)).module()

    def run(inputs: Sequence[Tensor]) -> list[Any]:
        with torch.no_grad():
            return [output.numpy() for output in module(*inputs)]

    return run


def _check_batches(call: PortableCall, runner: Exported, tolerance: float) -> None:
    """Compare outputs on other batch sizes than that of the export."""
    for batch in _OTHER_BATCHES:
        inputs = [with_batch(value, _CPU, batch) for value in call.inputs]
        try:
            compare(call, runner, inputs, tolerance)
        except ExportError as error:
            raise ExportError(f"with a batch of {batch}: {error}; {_FIXED_BATCH}") from error


def _inputs_with_batch(example_inputs: Any, batch: int) -> Any:
    example = as_example(example_inputs, None)
    lengths = {
        len(value) for value in (*example.args, *example.kwargs.values()) if isinstance(value, Tensor) and value.ndim
    }
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(
            "`dynamic_batch` needs inputs with one common number of examples along their first axes, got"
            f" {sorted(lengths)}; {_FIXED_BATCH}"
        )
    if example.kwargs:
        return {name: with_batch(value, _CPU, batch) for name, value in example.kwargs.items()}
    return tuple(with_batch(value, _CPU, batch) for value in example.args)


def _whole_batches(call: PortableCall, checks: tuple[Tensor, ...]) -> tuple[int, tuple[Tensor, ...]]:
    """The fixed batch size, and the examples to check, whose number is a multiple of it."""
    first = call.inputs[0]
    if first.ndim == 0 or any(len(value) != len(first) for value in call.inputs if value.ndim):
        return 1, checks  # the inputs share no axis of examples, so there is only one call
    batch = len(first)
    count = max(1, len(checks[0]) // batch) * batch
    return batch, tuple(with_batch(value, _CPU, count) for value in checks)
