"""Finds the parameter or buffer of which a tensor is a view."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["StoredTensors"]


class StoredTensors:
    """The parameters and buffers of a model by canonical name."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Index the tensors by their memory."""
        self._tensors = tensors
        self._names: dict[int, list[str]] = {}
        for name, tensor in tensors.items():
            if tensor.layout == torch.strided and tensor.numel():
                self._names.setdefault(tensor.untyped_storage().data_ptr(), []).append(name)

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of a name."""
        return self._tensors[name]

    def name_of(self, tensor: Tensor) -> str | None:
        """Name of the parameter or buffer that a tensor is, or is a view of."""
        if tensor.layout != torch.strided:
            return None
        for name in self._names.get(tensor.untyped_storage().data_ptr(), ()):
            owner = self._tensors[name]
            if 0 <= tensor.storage_offset() - owner.storage_offset() < owner.numel():
                return name
        return None

    def start(self, name: str, view: Tensor) -> int:
        """Number of the tensor's elements in front of a view of it."""
        return int(view.storage_offset() - self._tensors[name].storage_offset())
