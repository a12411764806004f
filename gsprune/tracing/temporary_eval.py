"""Runs a model in eval mode and restores its state afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gsprune.interrupts import PostponedInterrupts
from gsprune.tracing.autocast import without_autocast
from gsprune.tracing.originals import Originals

__all__ = ["is_fake_quantiser", "temporary_eval"]


@contextmanager
def temporary_eval(model: nn.Module, *, autocast: bool = False) -> Iterator[Originals]:
    """Context in which `model` is in eval mode, without gradients. Its state is restored at the end.

    Restored are training flags, buffers, attributes (also entries of dictionaries) and the random generators of torch
    (CPU and the model's CUDA devices), NumPy and Python. Parameters and tensors in attributes are restored if the
    forward sets their `data`, or writes to those that a traced forward wrote to. The tracer notes such writes in the
    `Originals` that the context yields. Lists that the forward appends to belong to the user and are not restored.
    Observers of fake quantisation do not run. Without `autocast`, the caller's autocast blocks are off.
    """
    modules = list(model.modules())
    training = [module for module in modules if module.training]
    attributes = [(module, dict(module.__dict__), _registries(module)) for module in modules]
    # Read from `modules`, because each walk over a deep module tree takes as long as a small layer.
    owned = {id(b): b for module in modules for b in module._buffers.values() if b is not None}
    buffers = [(buffer, buffer._version, buffer.detach().clone()) for buffer in owned.values()]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    parameters = [p for module in modules for p in module._parameters.values() if p is not None]
    plain = [value for _, before, _ in attributes for value in before.values() if isinstance(value, Tensor)]
    devices = sorted({p.device.index or 0 for p in parameters if p.is_cuda})
    precision = nullcontext() if autocast else without_autocast()
    with torch.no_grad(), precision, torch.random.fork_rng(devices=devices):
        originals = Originals([*parameters, *plain])
        try:
            for module in training:
                module.training = False
            for module in filter(is_fake_quantiser, modules):
                _stop_observer(module)
            yield originals
        finally:
            with PostponedInterrupts():
                _restore(attributes)
                originals.restore()
                for buffer, version, contents in buffers:
                    # Running statistics change without a new version. Equal buffers are not copied to, because that
                    # would break a pending backward.
                    if buffer._version != version or not torch.equal(buffer, contents):
                        if buffer.shape != contents.shape:  # a fake-quantise observer on its first forward
                            buffer.resize_(contents.shape)
                        buffer.copy_(contents)
                for module in training:
                    module.training = True
                random.setstate(python_state)
                np.random.set_state(numpy_state)


def is_fake_quantiser(module: nn.Module) -> bool:
    """True for torch's fake-quantise modules (`torch.ao.quantization`): all of them have this switch."""
    return "fake_quant_enabled" in module._buffers


def _stop_observer(module: nn.Module) -> None:
    """Stop the observer of a fake-quantise module, which would change the scales even in eval mode.

    Scales per channel must be traced, so quantisation is on for them. A module whose observer never ran has no scales,
    so quantisation is off.
    """
    scale = getattr(module, "scale", None)
    extremes = getattr(getattr(module, "activation_post_process", None), "min_val", None)
    switches = {"observer_enabled": 0, "static_enabled": 0}
    if scale is not None and scale.numel() > 1:
        switches["fake_quant_enabled"] = 1
    elif extremes is not None and extremes.numel() == 0:
        switches["fake_quant_enabled"] = 0
    for name, value in switches.items():
        switch = module._buffers.get(name)
        if switch is not None:
            switch.fill_(value)


# Dictionaries of every module that a forward does not write to: hooks.
_HOOKS = {name for name, value in nn.Module().__dict__.items() if isinstance(value, dict)} - {
    "_parameters",
    "_buffers",
    "_modules",
}


def _registries(module: nn.Module) -> dict[str, dict[Any, Any]]:
    """Attribute -> copy, for the attributes of a module that are dictionaries."""
    return {
        name: dict(value) for name, value in module.__dict__.items() if isinstance(value, dict) and name not in _HOOKS
    }


def _restore(attributes: list[tuple[nn.Module, dict[str, Any], dict[str, dict[Any, Any]]]]) -> None:
    for module, before, registries in attributes:
        present = module.__dict__
        if _differs(present, before):
            present.clear()
            present.update(before)
        for name, entries in registries.items():
            registry: dict[Any, Any] = present[name]
            if _differs(registry, entries):
                registry.clear()
                registry.update(entries)


def _differs(present: dict[Any, Any], before: dict[Any, Any]) -> bool:
    """True if two dictionaries hold other objects, or the same ones in another order."""
    return present.keys() != before.keys() or not all(map(is_, present.values(), before.values()))
