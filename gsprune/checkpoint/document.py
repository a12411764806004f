"""Checkpoint files: safetensors, without pickle, with a JSON document and a checksum in the header.

A document consists of None, booleans, numbers, strings, lists, tuples, dictionaries, tensors and NumPy arrays, in any
nesting. JSON lacks some of these types. A dictionary, whose keys need not be strings, is ``{"items": [[key, value],
...]}``, a tuple is ``{"tuple": [...]}``, a tensor is ``{"tensor": name, "memory_format": ...}`` and an array is
``{"array": {"tensor": ...}}``. The tensors in the file are contiguous.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from gsprune.errors import CheckpointError
from gsprune.files import write_atomically

__all__ = ["read_document", "write_document"]

FORMAT = 1

_HEADER_SIZE_BYTES = 8
_MEMORY_FORMATS = {"channels_last": torch.channels_last, "channels_last_3d": torch.channels_last_3d}


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document. On failure an existing file is kept.

    Args:
        path: the file; its folder exists.
        document: the document; tensors may have any device and strides.

    Raises:
        TypeError: a value cannot be written; the message names its place in the document.
        OSError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    body = json.dumps(_encoded(dict(document), "", tensors))
    header = {"gsprune_format": str(FORMAT), "gsprune": body, "sha256": _digest(body, tensors)}
    write_atomically(path, save_tensors(tensors, metadata=header))


def read_document(path: Path) -> dict[str, Any]:
    """Read a file of `write_document`.

    Returns:
        the document; tensors on the CPU, each with its own storage, in their memory format.

    Raises:
        CheckpointError: the file is truncated, modified, of another format version, or was not written by gsprune.
        OSError: the file cannot be read.
    """
    data = path.read_bytes()
    header = _header(path, data)
    if header["gsprune_format"] != str(FORMAT):
        raise CheckpointError(
            f"{path} is of checkpoint format {header['gsprune_format']}, this version of gsprune reads {FORMAT}; "
            f"install the version that wrote it"
        )
    try:
        tensors = load_tensors(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; take an older checkpoint") from error
    if _digest(header["gsprune"], tensors) != header["sha256"]:
        raise CheckpointError(f"{path} is damaged: its contents do not match their checksum; take an older checkpoint")
    document = _decoded(json.loads(header["gsprune"]), tensors)
    assert isinstance(document, dict)
    return document


def _header(path: Path, data: bytes) -> dict[str, str]:
    size = int.from_bytes(data[:_HEADER_SIZE_BYTES], "little")
    try:
        header = json.loads(data[_HEADER_SIZE_BYTES : _HEADER_SIZE_BYTES + size])
    except ValueError as error:  # includes UnicodeDecodeError
        raise CheckpointError(f"{path} is no checkpoint, or a damaged one: its header cannot be read") from error
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not {"gsprune_format", "gsprune", "sha256"} <= set(metadata):
        raise CheckpointError(f"{path} was not written by gsprune.save, or is damaged")
    return metadata


def _digest(body: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(body.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _encoded(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON-compatible data. Its tensors are added to `tensors`, named after their place in the document."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Tensor):
        return _encoded_tensor(value, place, tensors)
    if isinstance(value, np.ndarray):
        return {"array": _encoded_tensor(torch.tensor(value), place, tensors)}
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, Mapping):
        return {"items": [_encoded_item(key, item, place, tensors) for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [_encoded(item, f"{place}/{index}", tensors) for index, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    raise TypeError(
        f"a checkpoint cannot hold {place.lstrip('/')!r}, a {type(value).__name__}; it holds None, booleans, numbers, "
        f"strings, tensors, arrays, and lists, tuples and dictionaries of them"
    )


def _encoded_item(key: Any, value: Any, place: str, tensors: dict[str, Tensor]) -> list[Any]:
    if not isinstance(key, str | int) or isinstance(key, bool):
        raise TypeError(f"a checkpoint's dictionaries have keys that are strings or integers; {place!r} has {key!r}")
    return [key, _encoded(value, f"{place}/{key}", tensors)]


def _encoded_tensor(tensor: Tensor, place: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise TypeError(f"a checkpoint holds dense tensors with data; {place.lstrip('/')!r} is {tensor.layout}")
    name = place.lstrip("/")
    while name in tensors:  # keys 1 and "1" of one dictionary have the same place
        name += "'"
    tensors[name] = tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)
    return {"tensor": name, "memory_format": _memory_format(tensor)}


def _memory_format(tensor: Tensor) -> str:
    # Compare strides: a 1x1 kernel counts as contiguous in both formats, but convolutions depend on its strides.
    for name, dimensions in (("channels_last", 4), ("channels_last_3d", 5)):
        if tensor.ndim == dimensions and tensor.stride() != torch.empty(tensor.shape, device="meta").stride():
            like = torch.empty(tensor.shape, device="meta", memory_format=_MEMORY_FORMATS[name])
            if tensor.stride() == like.stride():
                return name
    return "contiguous"


def _decoded(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decoded(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "items" in value:
        return {key: _decoded(item, tensors) for key, item in value["items"]}
    if "tuple" in value:
        return tuple(_decoded(item, tensors) for item in value["tuple"])
    if "array" in value:
        return _decoded(value["array"], tensors).numpy()
    memory_format = _MEMORY_FORMATS.get(value["memory_format"], torch.contiguous_format)
    return tensors[value["tensor"]].clone(memory_format=memory_format)
