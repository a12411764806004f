"""The contents of a checkpoint file, and the document that is written for a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from gsprune.checkpoint.document import read_document
from gsprune.checkpoint.session_document import PRUNING_FIELDS, recorded_session, session_document
from gsprune.errors import CheckpointError
from gsprune.rewrite.session import Session, session_of
from gsprune.rewrite.tensors import aliases_of, canonical_tensors

__all__ = ["Record", "Shape", "document_of", "persistent_names", "read_record"]

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """The contents of a file.

    Attributes:
        path: the file, for messages.
        tensors: name -> contents, for all tensors in the file.
        layout: name -> shape and dtype, for all tensors in the file and all pruned tensors.
        aliases: other names of tied tensors -> canonical name.
        session: the pruning session, without structure and example; empty if the network was never pruned.
        optimizers: type and state of each optimizer.
        metadata: the metadata of `gsprune.save`.
    """

    path: Path
    tensors: dict[str, Tensor]
    layout: dict[str, tuple[Shape, str]]
    aliases: dict[str, str]
    session: Session
    optimizers: list[dict[str, Any]]
    metadata: dict[str, Any]

    def dense_shape(self, name: str) -> Shape:
        """The first-seen shape of a tensor."""
        return self.session.dense_shapes.get(name, self.layout[name][0])


def document_of(module: nn.Module, optimizers: Sequence[Optimizer], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a network, which `read_record` reads."""
    tensors, session = canonical_tensors(module), session_of(module)
    written = persistent_names(module, tensors)
    changed = [] if session is None else list(session.kept)
    return {
        "tensors": {name: tensors[name] for name in written},
        "layout": {
            name: (tuple(tensors[name].shape), str(tensors[name].dtype)) for name in dict.fromkeys([*written, *changed])
        },
        "aliases": aliases_of(module),
        "pruning": None if session is None else session_document(session),
        "optimizers": [{"type": type(each).__name__, "state": each.state_dict()} for each in optimizers],
        "metadata": metadata,
    }


def read_record(path: Path) -> Record:
    """Read a file of `gsprune.save`.

    Raises:
        CheckpointError: the file is damaged, or was written by something else or by another version.
        OSError: the file cannot be read.
    """
    document = read_document(path)
    try:
        pruning = document["pruning"]
        lacking = [] if pruning is None else [name for name in PRUNING_FIELDS if name not in pruning]
        if lacking:
            raise CheckpointError(
                f"{path} lacks {lacking} of the pruning state: it was written by another version of gsprune;"
                " read it with that version"
            )
        return Record(
            path=path,
            tensors=document["tensors"],
            layout=document["layout"],
            aliases=document["aliases"],
            session=recorded_session(pruning),
            optimizers=document["optimizers"],
            metadata=document["metadata"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} lacks a part of a checkpoint: {error!r}") from error


def persistent_names(module: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors in the ``state_dict``: all but buffers registered with ``persistent=False``."""
    omitted = {
        f"{prefix}.{name}" if prefix else name
        for prefix, owner in module.named_modules()
        for name in owner._non_persistent_buffers_set
    }
    return [name for name in tensors if name not in omitted]
