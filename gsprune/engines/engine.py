"""The engines that a network can be timed in."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gsprune.engines.onnx_file import noisy_exporter, portable_call, write_onnx
from gsprune.engines.session import SESSION_SETTINGS, open_session
from gsprune.engines.timing import Forward

__all__ = ["ENGINE_SETTINGS", "EngineName", "prepared"]

EngineName = Literal["eager", "compiled", "onnxruntime"]

# Convolutions are 2 to 4 times as fast channels-last, and the frames of environments are so already.
_MEMORY_FORMAT = "channels_last"
_COMPILE: Mapping[str, Any] = {"dynamic": False}
# Frozen, since it only infers: weights are packed once, and activations and sums go into the convolutions.
_INDUCTOR: dict[str, Any] = {"freezing": True}

ENGINE_SETTINGS: Mapping[EngineName, Mapping[str, Any]] = {
    "eager": {"memory_format": _MEMORY_FORMAT},
    "compiled": {"memory_format": _MEMORY_FORMAT, "compile": _COMPILE, "inductor": _INDUCTOR},
    "onnxruntime": {**SESSION_SETTINGS, "dynamic_batch": False},
}
"""What each engine is told, JSON values: a time that was measured with other settings is another one."""


def prepared(
    engine: EngineName,
    model: nn.Module,
    example_inputs: Any,
    forward: Callable[..., Any] | None = None,
    threads: int = 1,
) -> Forward:
    """A network loaded into an engine on the CPU, with its inputs at hand.

    PyTorch's engines run with as many threads as PyTorch has at the time of a call: see `timing.torch_threads`.

    Args:
        engine: which one.
        model: the network; a copy is made, in eval mode.
        example_inputs: tensor, tuple or dict of tensors; the batch is theirs.
        forward: callable(model, *example_inputs) -> outputs; None calls the model.
        threads: of ONNX Runtime.

    Raises:
        MissingExtraError: the engine is not installed.
        TypeError: an input is not a tensor.
    """
    call = portable_call(model, example_inputs, forward)
    if engine == "onnxruntime":
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.onnx"
            write_onnx(call, file, dynamic_batch=ENGINE_SETTINGS[engine]["dynamic_batch"])
            session = open_session(file, threads)
        arrays = {name: value.numpy() for name, value in zip(call.input_names, call.inputs, strict=True)}
        return lambda: session(arrays)
    # torch's stubs of `Module.to` know no memory format alone.
    module: Callable[..., Any] = call.module.to(memory_format=getattr(torch, _MEMORY_FORMAT))  # type: ignore[call-overload]
    inputs = tuple(_channels_last(value) for value in call.inputs)
    if engine == "compiled":
        import torch._inductor as inductor

        module = torch.compile(module, **_COMPILE)

    def run() -> Any:
        with torch.no_grad():
            return module(*inputs)

    if engine == "compiled":
        with noisy_exporter(), inductor.config.patch(_INDUCTOR):
            run()
    return run


def _channels_last(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=getattr(torch, _MEMORY_FORMAT)) if value.ndim == 4 else value
