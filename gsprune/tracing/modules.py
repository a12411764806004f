"""Constraints from a module's own attributes (`num_heads`, `proj_size`) that traced operations do not show."""

from __future__ import annotations

from torch import nn

from gsprune.tracing.tape import Tape
from gsprune.tracing.temporary_eval import is_fake_quantiser

__all__ = ["tie_modules"]


def tie_modules(tape: Tape, model: nn.Module) -> None:
    """Tie channels that the code of torch's own modules ties.

    In recurrent layers, hidden units are the inputs of the next step, although the trace may have one step only. In
    attention, the inner width equals that of queries and outputs. In fake quantisation, the observer's extremes belong
    to the channels.
    """
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, nn.RNNBase):
            for suffix in {key.removeprefix("weight_hh") for key in module._parameters if key.startswith("weight_hh")}:
                projection = f"{prefix}weight_hr{suffix}" if module.proj_size else None
                _tie_hidden_units(tape, f"{prefix}weight_hh{suffix}", projection)
        elif isinstance(module, nn.RNNCellBase):
            _tie_hidden_units(tape, f"{prefix}weight_hh", None)
        elif isinstance(module, nn.MultiheadAttention):
            _tie_attention(tape, module, prefix)
        elif is_fake_quantiser(module):
            _tie_observer(tape, module, prefix)


def _tie_observer(tape: Tape, module: nn.Module, prefix: str) -> None:
    """Unite scales per channel with the observer's extremes. The observer does not run in a trace."""
    scale = f"{prefix}scale"
    shape = tape.shapes.get(scale, ())
    if len(shape) != 1 or shape[0] < 2:
        return
    for local, _ in (*module.named_parameters(), *module.named_buffers()):
        name = tape.canonical(prefix + local)
        # The tape has the sizes from before the trace. A first forward makes buffers larger.
        if name != scale and tape.shapes[name] == shape:
            tape.op = "fake quantisation"
            tape.unite(tape.labels(scale, 0), tape.labels(name, 0))
            tape.used.add(name)


def _tie_hidden_units(tape: Tape, recurrent: str, projection: str | None) -> None:
    """Unite the recurrent weight's input axis with the hidden units (the projection's rows)."""
    recurrent = tape.canonical(recurrent)
    if recurrent not in tape.used:
        return
    consumed = tape.labels(recurrent, 1)
    made = tape.labels(projection, 0) if projection else tape.labels(recurrent, 0)[: len(consumed)]
    tape.op = "recurrence"
    tape.unite(made, consumed)
    tape.inputs.append(consumed)


def _tie_attention(tape: Tape, module: nn.MultiheadAttention, prefix: str) -> None:
    """Unite the inner width with inputs and outputs, and note the rows of the queries, whose scale torch computes."""
    fused = module._qkv_same_embed_dim
    queries, outputs = f"{prefix}{'in_proj_weight' if fused else 'q_proj_weight'}", f"{prefix}out_proj.weight"
    if queries not in tape.used or outputs not in tape.used:
        return
    tape.op = "attention"
    inner = tape.labels(outputs, 1)
    tape.unite(inner, tape.labels(outputs, 0))
    tape.unite(inner, tape.labels(queries, 1))
    tape.queries.append(tape.labels(queries, 0)[: module.embed_dim])
    if module.in_proj_bias is not None:
        tape.queries.append(tape.labels(f"{prefix}in_proj_bias", 0)[: module.embed_dim])
