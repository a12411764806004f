"""A damaged file is refused, or gives the very same model; never another one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from snapshots import snapshot
from torch import nn

import gsprune
from gsprune import CheckpointError
from gsprune.checkpoint.document import read_document
from gsprune.rewrite.session import session_of


def tiny(seed: int) -> tuple[nn.Sequential, torch.optim.Adam]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    return model, torch.optim.Adam(model.parameters())


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, bytes]:
    """A place to write to, a good file of a pruned model with its optimizer, and what loading it gives."""
    model, optimizer = tiny(0)
    model(torch.ones(2, 3)).square().mean().backward()
    optimizer.step()
    gsprune.prune_step(model, 0.5, optimizer=optimizer, example_inputs=torch.ones(2, 3))
    path = tmp_path_factory.mktemp("damaged") / "file"
    gsprune.save(model, path, optimizer=optimizer, note="ünïcode")
    return path, path.read_bytes(), loaded_from(path)


def loaded_from(path: Path) -> bytes:
    """Everything that loading a file of `tiny` sets, as bytes."""
    model, optimizer = tiny(1)
    metadata = gsprune.load(path, into=model, optimizer=optimizer)
    state = session_of(model)
    assert state is not None
    kept = {name: {axis: i.tolist() for axis, i in axes.items()} for name, axes in state.kept.items()}
    tensors = [*model.parameters(), *(t for each in optimizer.state.values() for t in each.values())]
    return repr((metadata, state.initial_widths, kept, [(t.dtype, t.tolist()) for t in tensors])).encode()


def damages(good: bytes) -> st.SearchStrategy[bytes]:
    """Files with a byte changed, a piece removed, repeated, put in or overwritten, or an end cut off."""
    places = st.integers(0, len(good) - 1)
    header = 8 + int.from_bytes(good[:8], "little")
    lengths = st.integers(1, 40)
    pieces = st.binary(min_size=1, max_size=8) | st.text('0123456789"{}[],: ', min_size=1, max_size=8).map(str.encode)
    in_header = st.integers(8, header)
    padding = st.integers(len(good[:header].rstrip()), header)  # white space, which may change without harm
    return st.one_of(
        places.map(lambda length: good[:length]),
        st.builds(lambda at, flip: good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :], places, st.integers(1, 255)),
        st.builds(lambda at, length: good[:at] + good[at + length :], places, lengths),
        st.builds(lambda at, length: good[: at + length] + good[at:], places, lengths),
        st.builds(lambda at, piece: good[:at] + piece + good[at:], places | st.just(len(good)), pieces),
        st.builds(lambda at, piece: good[:at] + piece + good[at + len(piece) :], in_header | padding, pieces),
    )


@given(data=st.data())
def test_a_damaged_file_is_refused_or_gives_the_very_same_model(
    data: st.DataObject, tiny_file: tuple[Path, bytes, bytes]
) -> None:
    path, good, expected = tiny_file
    path.write_bytes(data.draw(damages(good)))
    model, optimizer = tiny(1)
    before = snapshot(model, optimizer)
    refusal = ""
    try:
        gsprune.load(path, into=model, optimizer=optimizer)
    except CheckpointError as error:
        refusal = str(error)
    if refusal:
        assert re.search("damaged|not written by|no checkpoint|format", refusal)
        assert snapshot(model, optimizer) == before
    else:
        assert loaded_from(path) == expected


def test_a_truncated_file_is_refused_wherever_it_ends(tiny_file: tuple[Path, bytes, bytes]) -> None:
    path, good, _ = tiny_file
    for length in range(0, len(good), 29):
        path.write_bytes(good[:length])
        with pytest.raises(CheckpointError):
            read_document(path)


def test_a_changed_byte_of_any_tensor_is_noticed(tiny_file: tuple[Path, bytes, bytes]) -> None:
    path, good, _ = tiny_file
    for at in range(8 + int.from_bytes(good[:8], "little"), len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(CheckpointError, match="damaged"):
            read_document(path)
