"""Ties that a module's own code implies, whatever arrived of it as operations."""

from __future__ import annotations

from torch import nn

from gsprune.tracing.tape import Tape

__all__ = ["tie_modules"]


def tie_modules(tape: Tape, model: nn.Module) -> None:
    """Tie recurrent weights: hidden units are the inputs of the next step, also where one step alone was traced."""
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, nn.RNNBase):
            for suffix in {key.removeprefix("weight_hh") for key in module._parameters if key.startswith("weight_hh")}:
                _tie(tape, f"{prefix}weight_hh{suffix}", f"{prefix}weight_hr{suffix}" if module.proj_size else None)
        elif isinstance(module, nn.RNNCellBase):
            _tie(tape, f"{prefix}weight_hh", None)


def _tie(tape: Tape, recurrent: str, projection: str | None) -> None:
    """Unite the recurrent weight's input axis with the hidden units (the projection's rows)."""
    recurrent = tape.aliases.get(recurrent, recurrent)
    if recurrent not in tape.used:
        return
    consumed = tape.labels(recurrent, 1)
    made = tape.labels(projection, 0) if projection else tape.labels(recurrent, 0)[: len(consumed)]
    tape.op = "recurrence"
    tape.unite(made, consumed)
    tape.inputs.append(consumed)
