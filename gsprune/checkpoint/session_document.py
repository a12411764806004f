"""The session of a network as a part of a checkpoint's document, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from gsprune.rewrite.session import Session
from gsprune.rewrite.size_links import SizeLink
from gsprune.selection import dense_shapes
from gsprune.tracing.graph import Group, Member

__all__ = ["PRUNING_FIELDS", "recorded_session", "session_document"]

PRUNING_FIELDS = ("initial_widths", "kept", "dense_shapes", "groups", "attributes", "links", "refused")
_GROUP_FIELDS = ("name", "num_units", "width_per_unit", "kind")


def session_document(session: Session) -> dict[str, Any]:
    """The parts of a session that later steps need: its groups, but not its structure and its example."""
    dense, groups, kept = dict(session.dense_shapes), session.recorded_groups, session.kept
    if session.graph is not None:
        dense |= dense_shapes(session.graph, session.initial_widths)
        groups = session.graph.groups
    return {
        "initial_widths": session.initial_widths,
        "kept": {
            name: {axis: torch.from_numpy(np.array(index)) for axis, index in axes.items()}
            for name, axes in kept.items()
        },
        "dense_shapes": {name: dense[name] for name in kept},
        "groups": _groups_document(groups),
        "attributes": session.attributes,
        "links": [asdict(link) for link in session.links],
        "refused": session.refused,
    }


def recorded_session(document: Mapping[str, Any] | None) -> Session:
    """The session of a document; empty if the document is None (a network that was never pruned).

    It has no structure, so the next step traces the network.
    """
    if document is None:
        return Session(structure=None, example=None, initial_widths={})
    return Session(
        structure=None,
        example=None,
        initial_widths=document["initial_widths"],
        kept_before={
            name: {axis: index.numpy() for axis, index in axes.items()} for name, axes in document["kept"].items()
        },
        attributes=document["attributes"],
        links=tuple(SizeLink(**link) for link in document["links"]),
        refused=document["refused"],
        dense_shapes=document["dense_shapes"],
        recorded_groups=_groups(document["groups"]),
    )


def _groups_document(groups: Sequence[Group]) -> dict[str, Any]:
    """Groups as JSON-compatible data. Index vectors are stored separately, because few of them are distinct."""
    vectors: dict[bytes, int] = {}
    documents = [
        {
            **{name: getattr(group, name) for name in _GROUP_FIELDS},
            "members": [
                (member.tensor, member.axis, vectors.setdefault(member.units.tobytes(), len(vectors)), member.role)
                for member in group.members
            ],
        }
        for group in groups
    ]
    return {
        "groups": documents,
        "vectors": [torch.tensor(np.frombuffer(vector, dtype=np.int64), dtype=torch.int32) for vector in vectors],
    }


def _groups(document: Mapping[str, Any]) -> tuple[Group, ...]:
    vectors = [vector.numpy().astype(np.int64) for vector in document["vectors"]]
    return tuple(
        Group(
            **{name: group[name] for name in _GROUP_FIELDS},
            members=tuple(Member(tensor, axis, vectors[i], role) for tensor, axis, i, role in group["members"]),
        )
        for group in document["groups"]
    )
