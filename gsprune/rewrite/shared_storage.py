"""Refuses to cut parameters whose memory has other users, which would keep the old values."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from operator import attrgetter, gt

import torch
from torch import Tensor, UntypedStorage
from torch.multiprocessing.reductions import shared_cache

from gsprune.errors import RewriteError

__all__ = ["check_storages"]

Names = Sequence[Mapping[str, Tensor]]


def check_storages(tensors: Sequence[Tensor], names: Names) -> None:
    """Refuse to cut tensors whose memory other processes or other tensors use.

    Every step needs this check, because `share_memory` does not change the tensor object. `names` has the tensors of
    the model and of each follower by name, for messages.

    Raises:
        RewriteError: names the tensor and the way out.
    """
    storages = list(map(Tensor.untyped_storage, tensors))
    if any(map(UntypedStorage.is_shared, storages)):
        _refuse_other_processes(tensors, storages, names)
    is_alone = len(set(map(UntypedStorage.data_ptr, storages))) == len(storages)
    if not is_alone or any(map(gt, map(UntypedStorage.nbytes, storages), map(attrgetter("nbytes"), tensors))):
        _refuse_other_tensors(tensors, names)


def _refuse_other_processes(tensors: Sequence[Tensor], storages: Sequence[UntypedStorage], names: Names) -> None:
    sent = {reference.cdata for reference in list(shared_cache.values()) if hasattr(reference, "cdata")}
    for tensor, storage in zip(tensors, storages, strict=True):
        # Torch reports every CUDA storage as shared, but keeps a list of those that were sent or received.
        if storage._cdata in sent if tensor.is_cuda else storage.is_shared():
            raise RewriteError(
                f"{_name_of(tensor, names)!r} is in shared memory, and other processes would keep the old tensor;"
                " nothing was changed. Prune before `share_memory()`; or give every parameter and buffer memory of its"
                " own in this process (`p.data = p.data.clone()`), prune, and share the smaller network again"
            )


def _refuse_other_tensors(tensors: Sequence[Tensor], names: Names) -> None:
    """Refuse a cut tensor if another tensor overlaps it and has other elements too, or is a parameter in its place.

    A larger storage alone is no evidence of such a tensor: memory-mapped files have one storage.
    """
    cut: dict[int, list[Tensor]] = {}
    for tensor in tensors:
        cut.setdefault(tensor.untyped_storage().data_ptr(), []).append(tensor)
    owned = {id(tensor) for tensor in tensors}
    for other in gc.get_objects():
        if type(other) not in (Tensor, torch.nn.Parameter) or other.layout is not torch.strided:
            continue
        for tensor in cut.get(other.untyped_storage().data_ptr(), ()):
            if other is not tensor and _reaches_beyond(other, tensor, is_owned=id(other) in owned):
                raise RewriteError(
                    f"{_name_of(tensor, names)!r} is a view into the memory of another tensor, of shape"
                    f" {tuple(other.shape)}, which would keep the old values; nothing was changed. Prune before the"
                    " parameters are flattened or joined; or give it memory of its own (`p.data = p.data.clone()`),"
                    " prune, and join them again (tie whole parameters by assigning the parameter, not its data)"
                )


def _reaches_beyond(other: Tensor, tensor: Tensor, *, is_owned: bool) -> bool:
    """True if `other` overlaps `tensor` and has elements outside of it, or is a parameter in the same place."""
    begin, end = _extent(tensor)
    other_begin, other_end = _extent(other)
    if other_end <= begin or end <= other_begin:
        return False
    return is_owned or other_begin < begin or end < other_end


def _extent(tensor: Tensor) -> tuple[int, int]:
    """Addresses of the first element and behind the last one."""
    if tensor.numel() == 0:
        return 0, 0
    begin = tensor.data_ptr()
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + (last + 1) * tensor.element_size()


def _name_of(tensor: Tensor, names: Names) -> str:
    return next(name for module in names for name, other in module.items() if other is tensor)
