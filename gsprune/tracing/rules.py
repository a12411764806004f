"""The table of rules: operation -> rule.

An operation is looked up by its full name ("aten.max.other"), by its name without the overload ("aten.max"), and as the
out-of-place form of an in-place one ("aten.add" for ``add_``). Operations that torch tags as pointwise need no entry.
Anything else protects every channel that enters or leaves it.

Exempt from "sliced equals masked" (listed in `Graph.inexact` where they meet channels): layer, group and RMS norm,
softmax over channels, means, extremes and variances over channels, local response norm.
"""

from __future__ import annotations

from functools import cache

import torch

from gsprune.tracing import (
    rules_attention,
    rules_experts,
    rules_index,
    rules_layers,
    rules_maps,
    rules_norms,
    rules_parts,
    rules_quantised,
    rules_reductions,
    rules_rnn,
    rules_views,
)
from gsprune.tracing.rules_common import Rule
from gsprune.tracing.rules_maps import pointwise

__all__ = ["RULES", "rule_for"]

RULES: dict[str, Rule] = {
    **rules_layers.RULES,
    **rules_views.RULES,
    **rules_parts.RULES,
    **rules_maps.RULES,
    **rules_reductions.RULES,
    **rules_norms.RULES,
    **rules_experts.RULES,
    **rules_index.RULES,
    **rules_attention.RULES,
    **rules_rnn.RULES,
    **rules_quantised.RULES,
    "aten.max.other": pointwise,
    "aten.min.other": pointwise,
}


@cache
def rule_for(func: torch._ops.OpOverload) -> Rule | None:
    """The rule of an operation, or None."""
    name = func._schema.name.replace("::", ".")
    candidates = [f"{name}.{func._overloadname}", name]
    if func._schema.is_mutable:
        candidates += [name.removesuffix("_")]
    for candidate in candidates:
        if candidate in RULES:
            return RULES[candidate]
    if torch.Tag.pointwise in func.tags:
        return pointwise
    return None
