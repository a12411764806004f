"""Rules of matrix products that use another weight for every group of rows (mixture of experts)."""

from __future__ import annotations

from gsprune.tracing.rules_common import Call, Result, Rule, protect_all
from gsprune.tracing.rules_layers import product
from gsprune.tracing.shadow import Shadow
from gsprune.tracing.tape import Tape

__all__ = ["RULES"]


def _grouped_mm(tape: Tape, call: Call) -> Result:
    """Grouped products (x, weights, offs): rows (t, k) of x by the weight (k, m) of their expert; all experts stay."""
    x, weights = call.args[:2]
    if x.ndim != 2 or weights.ndim != 3:
        return protect_all(tape, call)
    for layer in tape.of(weights).layers:
        if layer.shape[0] > 1:
            tape.protect(layer, f"{call.op}: rows are numbered by their expert")
    rows = x.unsqueeze(0)
    tape.mark(rows, tape.of(x).with_layers([layer[None] for layer in tape.of(x).layers]))
    shadow = product(tape, rows, weights, (weights.shape[0], *call.out.shape))
    layers = [layer.squeeze(0) for layer in shadow.layers if layer.shape[0] == 1]
    return Shadow(layers, shadow.kind, shadow.source)


RULES: dict[str, Rule] = {"aten._grouped_mm": _grouped_mm}
