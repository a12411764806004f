"""The groups that `ignore=` excludes from pruning."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from gsprune.selection import group_layers, matching_groups
from gsprune.tracing.graph import Graph

__all__ = ["ignored_groups"]


def ignored_groups(model: nn.Module, graph: Graph, ignore: Sequence[str | nn.Module | type]) -> frozenset[str]:
    """The groups that contain an output of an ignored module.

    An entry of `ignore` is a module or group name (a glob; a module's name includes its submodules), a module, or a
    module type.

    Raises:
        TypeError: an entry is none of these.
        ValueError: the network does not have a name or a module.
    """
    if isinstance(ignore, tuple) and not ignore:
        return frozenset()
    if isinstance(ignore, str | nn.Module | type):
        ignore = (ignore,)
    try:
        entries = tuple(ignore)
    except TypeError:
        raise TypeError(
            f"`ignore` must be a sequence of names, modules or module types, got {type(ignore).__name__}"
        ) from None
    names: set[str] = set()
    for i, entry in enumerate(entries):
        names |= _ignored_by(model, graph, entry, i)
    return frozenset(names)


def _ignored_by(model: nn.Module, graph: Graph, entry: object, index: int) -> set[str]:
    if isinstance(entry, str):
        found = set(matching_groups(graph, entry)) | set(matching_groups(graph, f"{entry}.*"))
        if not found and not any(fnmatchcase(name, entry) for name, _ in model.named_modules()):
            raise ValueError(
                f"`ignore[{index}]` is {entry!r}, which matches no module of the model;"
                " print(gsprune.trace(model)) shows the names"
            )
        return found
    if isinstance(entry, nn.Module):
        inside = {name for name, module in model.named_modules() for part in entry.modules() if module is part}
        if not inside:
            raise ValueError(f"`ignore[{index}]` is a {type(entry).__name__} that is not part of the model")
        return _groups_of_layers(graph, inside)
    if isinstance(entry, type) and issubclass(entry, nn.Module):
        return _groups_of_layers(
            graph,
            {
                f"{name}.{part}" if name and part else name or part
                for name, module in model.named_modules()
                if isinstance(module, entry)
                for part, _ in module.named_modules()
            },
        )
    raise TypeError(f"`ignore[{index}]` must be a module name (glob), a module or a module type, got {entry!r}")


def _groups_of_layers(graph: Graph, layers: set[str]) -> set[str]:
    return {group.name for group in graph.groups if group_layers(group) & layers}
