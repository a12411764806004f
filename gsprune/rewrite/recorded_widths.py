"""Cuts a dense model to the widths of a checkpoint, without a trace and a check."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from gsprune.backends import get_backend
from gsprune.rewrite.session import Session
from gsprune.rewrite.shared_storage import check_storages
from gsprune.rewrite.size_links import link_entries, links_of
from gsprune.rewrite.tensors import aliases_of, canonical_tensors, check_gradient
from gsprune.rewrite.transaction import Transaction

__all__ = ["rewrite_to"]


def rewrite_to(model: nn.Module, session: Session, transaction: Transaction) -> None:
    """Reduce a dense model to the widths of a session.

    The changes belong to the caller's transaction.

    Raises:
        RewriteError: a gradient cannot be sliced, or a parameter's memory has other users.
    """
    tensors, kept = canonical_tensors(model), session.kept
    check_storages([tensors[name] for name in kept], [tensors])
    before = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    patterns = [tuple(sorted(axes.items())) for axes in kept.values()]
    olds: list[Tensor] = []
    pattern_of: list[int] = []
    for index, name in enumerate(kept):
        parameter, gradient = tensors[name], tensors[name].grad
        if gradient is not None:
            check_gradient(parameter, gradient, partial(str, name))
        found = [parameter] if gradient is None else [parameter, gradient]
        olds += found
        pattern_of += [index] * len(found)
    modules = dict(model.named_modules(remove_duplicate=False))
    links = links_of(modules, before, kept, aliases_of(model))
    if olds:
        backend = get_backend("auto", olds[0].device)
        transaction.swap(olds, backend.slice(olds, patterns, pattern_of))
    after = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    transaction.set_entries(link_entries(modules, links, after))
    transaction.set_entries(
        [
            (modules[name].__dict__, attribute, value)
            for name, values in session.attributes.items()
            for attribute, value in values.items()
        ]
    )
