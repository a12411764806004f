"""The tensors and modules of a model by name, and the dictionaries of stored integers, looked up once.

Walking a module tree costs more than a small network's whole pruning step. A binding is valid as long as every module
has the same submodules, parameters and buffers, and every tensor has the shape that it had after the last step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from gsprune.errors import RewriteError
from gsprune.rewrite.size_links import Entry, SizeLink, link_entries, links_of
from gsprune.rewrite.tensors import canonical_tensors
from gsprune.tracing.names import named_tensors
from gsprune.tracing.structure import Structure

__all__ = ["Binding"]


class Binding:
    """One module (the model or a follower) under the names of a structure.

    Args:
        tensors: the module's tensors by name, also by every other name that the model has for them; a container of
            tensors may lack some; None looks them up.

    Raises:
        RewriteError: a tensor cannot be changed in place.

    Attributes:
        tensors: the tensors that pruning may cut, by name: canonical names first, then other names of tied tensors
            under which this module has another tensor (a follower may not tie them).
        canonical: (len(tensors),) the canonical name of each.
        cuts: (len(tensors),) the cut of each, an index into `Structure.cuts`.
        ties: pairs of positions at which `tensors` has the same tensor.
        ids: ids of the tensors.
        links: stored integers that `gsprune.rewrite.size_links` finds.
        parts: the input of `_core.slice.plan_cuts` at every step: the tensors, their cuts, and the stored integers as
            (attributes, name, vector, multiplier, divisor).
    """

    def __init__(self, module: nn.Module, structure: Structure, tensors: Mapping[str, Tensor] | None = None) -> None:
        everything = named_tensors(module) if tensors is None else tensors
        graph = structure.graph
        cut = structure.of_axis
        self.module = module
        self.tensors: dict[str, Tensor] = {name: everything[name] for name in cut if name in everything}
        self.canonical: list[str] = list(self.tensors)
        for alias, name in graph.aliases.items():
            if name in cut and alias in everything and everything[alias] is not everything.get(name):
                self.tensors[alias] = everything[alias]
                self.canonical.append(name)
        for name, tensor in self.tensors.items():
            _check_rewritable(name, tensor)
        self.cuts = [structure.cut_of[name] for name in self.canonical]
        self.ties = _ties(self.tensors)
        self.ids = frozenset(id(tensor) for tensor in self.tensors.values())
        self.module_of = dict(module.named_modules(remove_duplicate=False))
        self.links = links_of(
            self.module_of, graph.shapes, {name: dict(axes) for name, axes in cut.items()}, graph.aliases
        )
        modules = list(dict.fromkeys(self.module_of.values()))
        self._submodules = _Entries(each._modules for each in modules)
        self._tensors = _Entries(registry for each in modules for registry in (each._parameters, each._buffers))
        self.note_shapes()
        values = [
            (self.module_of[link.module].__dict__, link.attribute, vector, link.multiplier, link.divisor)
            for link in self.links
            if (vector := dict(cut[link.tensor]).get(link.axis)) is not None and link.index is None
        ]
        self.parts = list(self.tensors.values()), self.cuts, values
        self._tuple_links = [link for link in self.links if link.index is not None]

    @cached_property
    def parameter_names(self) -> tuple[str, ...]:
        """Canonical names of all parameters."""
        return tuple(name for name, _ in self.module.named_parameters())

    @property
    def device(self) -> torch.device:
        """Present device of the network; moving a module leaves its tensors the same objects."""
        return self._first_tensor.device

    @cached_property
    def _first_tensor(self) -> Tensor:
        return next(iter(canonical_tensors(self.module).values()))

    def stored_value(self, link: SizeLink) -> Any:
        """The attribute that a link sets, as it is now."""
        return self.module_of[link.module].__dict__[link.attribute]

    def has_submodules(self) -> bool:
        """True if no submodule was added, removed or replaced since the lookup."""
        return self._submodules.are_unchanged()

    def is_valid(self) -> bool:
        """True if the module has the submodules and tensors that were looked up, in the shapes after the last step."""
        return self.has_submodules() and self._tensors.are_unchanged() and self._tensors.shapes() == self._shapes

    def note_shapes(self) -> None:
        """Note the present shapes of all tensors, at the end of a step."""
        self._shapes = self._tensors.shapes()

    def tuple_entries(self, after: Structure) -> list[Entry]:
        """Stored tuples that change; the integers are in `parts`. The shapes after the step are read only if needed."""
        return link_entries(self.module_of, self._tuple_links, after.graph.shapes) if self._tuple_links else []


class _Entries:
    """The entries that dictionaries had at one moment."""

    def __init__(self, dictionaries: Iterable[dict[str, Any]]) -> None:
        self._lengths = [(each, len(each)) for each in dictionaries]
        self._entries = [(each, *entry) for each, _ in self._lengths for entry in each.items()]
        self._values = [value for _, _, value in self._entries if isinstance(value, Tensor)]

    def are_unchanged(self) -> bool:
        """True if the dictionaries have the same keys and the same objects; runs at every step."""
        return all([each.get(key) is value for each, key, value in self._entries]) and all(
            [len(each) == length for each, length in self._lengths]
        )

    def shapes(self) -> list[torch.Size]:
        """The present shapes of the tensors among the entries."""
        return [tensor.shape for tensor in self._values]


def _ties(tensors: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    first: dict[int, int] = {}
    pairs = ((first.setdefault(id(tensor), i), i) for i, tensor in enumerate(tensors.values()))
    return [(i, j) for i, j in pairs if i != j]


def _check_rewritable(name: str, tensor: Tensor) -> None:
    if tensor.is_inference():
        raise RewriteError(
            f"{name!r} was created under torch.inference_mode and cannot be changed in place; nothing was changed."
            " Build or load the model outside of inference_mode"
        )
    if not tensor.is_leaf:
        raise RewriteError(f"{name!r} is computed from other tensors; nothing was changed. Detach it")
