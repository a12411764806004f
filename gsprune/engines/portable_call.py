"""A network as a function from tensors to tensors, for exporters and engines."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gsprune.arrays import AnyArray
from gsprune.engines.suppress_warnings import suppress_warnings
from gsprune.errors import needs
from gsprune.rewrite.session import SESSION_ATTRIBUTE
from gsprune.rewrite.tensors import unwrapped
from gsprune.tracing.example import Example, as_example, first_outputs
from gsprune.tracing.outputs import tensors_in
from gsprune.tracing.wrappers import is_scripted

__all__ = ["PortableCall", "portable_call"]


class _Call(nn.Module):
    """A network that takes its inputs by position and returns a flat tuple of tensors."""

    def __init__(self, model: nn.Module, names: Sequence[str | None], forward: Callable[..., Any] | None) -> None:
        super().__init__()
        self.model = model
        self._names = tuple(names)
        self._forward = forward

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The tensors of the network's output."""
        args = [value for name, value in zip(self._names, inputs, strict=True) if name is None]
        kwargs = {name: value for name, value in zip(self._names, inputs, strict=True) if name is not None}
        output = self.model(*args, **kwargs) if self._forward is None else self._forward(self.model, *args, **kwargs)
        return tuple(tensors_in(output))


@dataclass(frozen=True)
class PortableCall:
    """A copy of a network on the CPU in eval mode, and the inputs of one call.

    Attributes:
        module: takes `inputs` by position and returns a flat tuple of tensors.
        inputs: contiguous tensors on the CPU.
        input_names: one per input.
        output_names: one per output.
        outputs: the result of the call.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    outputs: tuple[Tensor, ...]

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The outputs for other inputs."""
        with torch.no_grad():
            outputs: tuple[Tensor, ...] = self.module(*inputs)
        return outputs

    @property
    def arrays(self) -> dict[str, AnyArray]:
        """The inputs by name."""
        return {name: value.numpy() for name, value in zip(self.input_names, self.inputs, strict=True)}

    @cached_property
    def onnx(self) -> bytes:
        """The contents of an ONNX file with a fixed batch size; see `write_onnx` for errors."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.onnx"
            self.write_onnx(file, dynamic_batch=False)
            return file.read_bytes()

    def write_onnx(self, path: Path, dynamic_batch: bool = True) -> None:
        """Write an ONNX file with PyTorch's exporter.

        Args:
            path: the file.
            dynamic_batch: make the first axis of all inputs dynamic. The inputs should then have at least two examples,
                because the exporter fixes an axis of length 1. False fixes the axis to the inputs' length.

        Raises:
            MissingExtraError: onnx or onnxscript is not installed.
            Exception: the exporter does not support the network.
        """
        for package in ("onnx", "onnxscript"):
            with needs(package, "export"):
                __import__(package)
        batch = torch.export.Dim("batch")
        with suppress_warnings():
            program = torch.onnx.export(
                self.module,
                self.inputs,
                dynamo=True,
                input_names=list(self.input_names),
                output_names=list(self.output_names),
                dynamic_shapes={"inputs": tuple({0: batch} for _ in self.inputs)} if dynamic_batch else None,
                verbose=False,
            )
            assert program is not None
            # Remove the stack traces of the exporting machine: half of a small file, and private.
            for node in program.model.graph.all_nodes():
                node.metadata_props.clear()
            program.save(str(path), external_data=False)


def portable_call(
    model: nn.Module,
    example_inputs: Any,
    forward: Callable[..., Any] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> PortableCall:
    """Copy a network to the CPU, in eval mode, for export. The network itself is not changed.

    Args:
        model: the network.
        example_inputs: tensor, tuple of positional inputs or dict of inputs by name; tensors only.
        forward: callable(model, *example_inputs) -> outputs; None calls the model.
        input_names: names of the inputs in the file; None takes the names of the called function's parameters.
        output_names: names of the outputs; None takes "output", or "output_0" and so on.

    Raises:
        TypeError: the model is TorchScript, an input is not a tensor, or names are not strings.
        ValueError: the network fails on the inputs or returns no tensor, or the number of names is wrong.
    """
    module = unwrapped(model)
    if is_scripted(module):
        raise TypeError(
            f"`model` is a scripted or traced TorchScript module ({type(module).__name__}), which PyTorch cannot"
            " export: pass the Python module"
        )
    example = as_example(example_inputs, forward)
    named: list[tuple[str | None, Any]] = [(None, value) for value in example.args]
    named += list(example.kwargs.items())
    for name, value in named:
        if not isinstance(value, Tensor):
            raise TypeError(
                f"`example_inputs` must contain only tensors to be exported, got {type(value).__name__}"
                f"{'' if name is None else f' for {name!r}'}; bind other values in `forward=lambda model, x: ...`"
            )
    inputs = tuple(value.detach().cpu().contiguous() for _, value in named)
    copy = deepcopy(module).cpu().eval()
    copy.__dict__.pop(SESSION_ATTRIBUTE, None)
    for tensor in (*copy.parameters(), *copy.buffers()):
        tensor.data = tensor.data.contiguous()  # ExecuTorch refuses channels-last weights
    call = _Call(copy, [name for name, _ in named], forward).eval()
    with torch.no_grad():
        arguments = dict(zip(example.kwargs, inputs[len(example.args) :], strict=True))
        first_outputs(copy, Example(inputs[: len(example.args)], arguments, forward))
        outputs: tuple[Tensor, ...] = call(*inputs)
    if not outputs:
        raise ValueError("`model` returns no tensor: there is nothing to export")
    default_outputs = ["output"] if len(outputs) == 1 else [f"output_{i}" for i in range(len(outputs))]
    return PortableCall(
        call,
        inputs,
        _checked_names("input_names", input_names, _parameter_names(copy, example)),
        _checked_names("output_names", output_names, default_outputs),
        outputs,
    )


def _checked_names(argument: str, names: Sequence[str] | None, default: Sequence[str]) -> tuple[str, ...]:
    if names is None:
        return tuple(default)
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"`{argument}` must be a list of names, one per tensor, got {names!r}")
    if len(names) != len(default) or len(set(names)) != len(names):
        raise ValueError(f"`{argument}` must be {len(default)} different names, got {list(names)}")
    return tuple(names)


def _parameter_names(model: nn.Module, example: Example) -> list[str]:
    """The names of the called function's parameters; input_0 and so on for inputs that go to `*args`."""
    function = example.forward if example.forward is not None else model.forward
    parameters = list(inspect.signature(function).parameters.values())[0 if example.forward is None else 1 :]
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    count = len(example.args)
    names = positional[:count] if len(positional) >= count else [f"input_{i}" for i in range(count)]
    return [*names, *example.kwargs]
