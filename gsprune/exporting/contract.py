"""The contract: a JSON file next to an exported network that describes its inputs, outputs, size and origin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from gsprune.engines.engine import package_version
from gsprune.engines.portable_call import PortableCall
from gsprune.errors import TraceError
from gsprune.exporting.comparison import Comparison
from gsprune.rewrite.session import session_of
from gsprune.rewrite.tensors import unwrapped
from gsprune.tracing import trace
from gsprune.tracing.graph import Graph

__all__ = ["call_entry", "check_entry", "contract_path", "encoded", "file_entry", "network_entry"]


def contract_path(path: Path) -> Path:
    """Path of an exported file's contract: policy.onnx -> policy.onnx.json."""
    return path.with_name(f"{path.name}.json")


def call_entry(call: PortableCall, dynamic_batch: bool) -> dict[str, Any]:
    """Names, shapes and dtypes of inputs and outputs."""
    batch = len(call.inputs[0]) if call.inputs and call.inputs[0].ndim else None

    def described(names: Sequence[str], tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
        entries = []
        for name, tensor in zip(names, tensors, strict=True):
            shape: list[int | str] = list(tensor.shape)
            if dynamic_batch and shape and shape[0] == batch:
                shape[0] = "batch"
            entries.append({"name": name, "shape": shape, "dtype": str(tensor.dtype).removeprefix("torch.")})
        return entries

    return {
        "inputs": described(call.input_names, call.inputs),
        "outputs": described(call.output_names, call.outputs),
    }


def network_entry(model: nn.Module, example_inputs: Any, forward: Callable[..., Any] | None) -> dict[str, Any]:
    """Parameters, MACs and widths; for a pruned network the first widths, too.

    A network that cannot be traced has only the number of parameters.
    """
    module = unwrapped(model)
    entry: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in module.parameters())}
    graph = _graph_of(module, example_inputs, forward)
    if graph is not None:
        session = session_of(module)
        entry["macs"] = graph.macs()
        entry["widths"] = {group.name: group.width for group in graph.groups}
        if session is not None:
            entry["initial_widths"] = dict(session.initial_widths)
    return entry


def file_entry(path: Path, name: str) -> dict[str, Any]:
    """Name, size and checksum of the exported file."""
    data = path.read_bytes()
    return {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def check_entry(comparison: Comparison, against: str) -> dict[str, Any]:
    """The result of the comparison at export."""
    return {
        "against": against,
        "examples": comparison.examples,
        "max_abs_diff": comparison.max_abs_diff,
        "same_choice": comparison.same_choice,
        "ties": comparison.ties,
    }


def encoded(entries: Mapping[str, Any]) -> bytes:
    """The contract's text.

    Raises:
        TypeError: an entry is not JSON.
    """
    gsprune, torch = (package_version(package, "(from source)") for package in ("gsprune", "torch"))
    made_by = {"made_by": f"gsprune {gsprune}, torch {torch}, numpy {np.__version__}"}
    try:
        text = json.dumps({**entries, **made_by}, indent=2)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`contract` must hold only JSON values: {error}") from error
    return f"{text}\n".encode()


def _graph_of(module: nn.Module, example_inputs: Any, forward: Callable[..., Any] | None) -> Graph | None:
    try:
        return trace(module, example_inputs, forward)[0]
    except TraceError:
        return None
