"""The registry of rules: operation -> rule.

An operation is looked up by its full name ("aten.max.other"), by its name without the overload ("aten.max"), and as the
out-of-place form of an in-place one ("aten.add" for ``add_``). Operations that torch tags as pointwise, in either form,
need no entry.
An operation without a rule protects every channel that enters or leaves it.

Exempt from "sliced equals masked" (listed in `Graph.inexact` where they meet channels): layer, group and RMS norm,
softmax over channels, means, extremes and variances over channels, local response norm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

import torch

from gsprune.tracing.call import Call
from gsprune.tracing.shadow import Shadow
from gsprune.tracing.tape import Tape

__all__ = ["RULES", "Operation", "Rule", "aten", "operation_of", "rule"]

Rule = Callable[[Tape, Call], Shadow | Sequence[Shadow]]
"""A rule returns the shadow of all outputs, or a list with one per output. Outputs that the list lacks are fixed."""

RULES: dict[str, Rule] = {}
POINTWISE = "aten.add"  # has the rule of all operations that torch tags as pointwise
_READS_VALUES = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}

_AnyRule = TypeVar("_AnyRule", bound=Rule)


class Operation(NamedTuple):
    """An operation as the tracer sees it before it runs.

    Attributes:
        name: "aten.add", also for ``add_``.
        rule: its rule, None if it has none.
        mutable: True if it writes into an argument.
        composite: True if it has no rule and is made of other operations. Then these are traced.
        random: True if it draws random numbers.
        reads_values: True if its output is a number, or a tensor whose sizes depend on values.
    """

    name: str
    rule: Rule | None
    mutable: bool
    composite: bool
    random: bool
    reads_values: bool


def rule(*names: str, replace: bool = False) -> Callable[[_AnyRule], _AnyRule]:
    """Decorator that registers the rule of one or more operations.

    Args:
        names: operations as torch names them: "aten.cumsum", "mylib::shift", with or without an overload.
        replace: replace rules that are there already.

    Raises:
        TypeError: a name is no string, or the decorated object cannot be called.
        ValueError: there is no name, a name has no namespace, or it has a rule already and `replace` is False.
    """
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f'`names` must be strings, as in @rule("mylib::shift"), got {name!r}')
    if not names:
        raise ValueError('`names` must have at least one operation, as in @rule("mylib::shift")')
    full = [name.replace("::", ".") for name in names]
    for name in full:
        if "." not in name.strip("."):
            raise ValueError(f'`names` must be operations like "aten.cumsum" or "mylib::shift", got {name!r}')
        if name in RULES and not replace:
            raise ValueError(f"{name} has a rule already: pass replace=True to replace it")

    def register(function: _AnyRule) -> _AnyRule:
        if not callable(function):
            raise TypeError(f"@rule must decorate a function of (tape, call), got {function!r}")
        RULES.update(dict.fromkeys(full, function))
        operation_of.cache_clear()
        return function

    return register


def aten(names: str) -> Callable[[_AnyRule], _AnyRule]:
    """`rule` for the operations of torch's own namespace, separated by spaces."""
    return rule(*(f"aten.{name}" for name in names.split()))


def _out_of_place(func: torch._ops.OpOverload, base: str) -> torch._ops.OpOverload:
    """The overload of operation `base` with the arguments of an in-place overload; `func` itself if there is none."""
    namespace, _, name = base.partition(".")
    packet = getattr(getattr(torch.ops, namespace), name, None)
    return getattr(packet, func._overloadname or "default", func)


@cache
def operation_of(func: torch._ops.OpOverload) -> Operation:
    """The operation behind an overload."""
    name, mutable = func._schema.name.replace("::", "."), func._schema.is_mutable
    base = name.removesuffix("_") if mutable else name
    keys = [key for key in (f"{name}.{func._overloadname}", name, base) if key in RULES]
    if not keys and any(torch.Tag.pointwise in overload.tags for overload in (func, _out_of_place(func, base))):
        keys = [POINTWISE]
    composite = not keys and func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
    random = torch.Tag.nondeterministic_seeded in func.tags
    reads = not _READS_VALUES.isdisjoint(func.tags)
    return Operation(base, RULES[keys[0]] if keys else None, mutable, composite, random, reads)
