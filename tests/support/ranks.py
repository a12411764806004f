"""Runs a function on several ranks of a gloo group, each a process of this machine."""

from __future__ import annotations

import multiprocessing
import pickle
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_SECONDS = 240.0

# The server has done once what takes seconds; the ranks are forked from it.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["preloaded"])


@dataclass(frozen=True)
class _Task:
    """What a rank is to do as one of a group; answered by its result, and how it failed."""

    worker: Callable[..., Any]
    rank: int
    size: int
    store: str
    args: tuple[Any, ...]


class _Rank:
    """A process that is a rank of one group after another: a first training in a process takes seconds longer."""

    def __init__(self) -> None:
        self._connection, theirs = _CONTEXT.Pipe()
        # A daemon: it ends with the tests.
        self._process = _CONTEXT.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def start(self, task: _Task) -> None:
        self._connection.send(task)

    def answer(self) -> tuple[Any, str | None]:
        if not self._connection.poll(_SECONDS):
            return None, f"no result after {_SECONDS:g} s"
        try:
            # Pickled here: a connection's own way would share tensors' memory with a process that has ended.
            answer: tuple[Any, str | None] = pickle.loads(self._connection.recv_bytes())
        except EOFError:
            return None, "ended without a result"
        return answer

    def leave_group(self) -> None:
        self._connection.send(None)

    def end(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.join()


_idle: list[_Rank] = []


def run_ranks(
    worker: Callable[..., Any], store: Path, *args: Any, size: int = 2, may_die: int | None = None
) -> list[Any]:
    """What `worker(rank, *args)` returns on every rank; a rank's exception is raised here.

    Args:
        worker: a function of a module in tests/support. What it sets in its process, it sets back.
        store: a file that is not there yet, by which the ranks meet.
        args: the same for all ranks.
        size: ranks.
        may_die: a rank that may end without a result, which is then None.
    """
    ranks = [_idle.pop() if _idle else _Rank() for _ in range(size)]
    usable = False
    try:
        for number, rank in enumerate(ranks):
            rank.start(_Task(worker, number, size, str(store), args))
        answers = [rank.answer() for rank in ranks]
        usable = not any(text for _, text in answers)
    finally:
        for rank in ranks:
            if usable:
                # gloo may have been connecting one rank to another until now, so none leaves before all have answered.
                rank.leave_group()
                _idle.append(rank)
            else:
                rank.end()
    failures = [f"rank {number}: {text}" for number, (_, text) in enumerate(answers) if text and number != may_die]
    if failures:
        raise RuntimeError("\n".join(failures))
    return [result for result, _ in answers]


def _serve(connection: Connection) -> None:
    """The life of a rank: it ends when the tests do, or have closed the connection, or when it has failed."""
    torch.set_num_threads(1)
    with suppress(EOFError):
        while True:
            task = connection.recv()
            try:
                connection.send_bytes(pickle.dumps((_run(task), None)))
            except BaseException:
                # A failed rank ends at once: gloo then fails the collectives in which the other ranks wait for it.
                connection.send_bytes(pickle.dumps((None, traceback.format_exc())))
                return
            connection.recv()
            dist.destroy_process_group()


def _run(task: _Task) -> Any:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{task.store}",
        rank=task.rank,
        world_size=task.size,
        timeout=timedelta(seconds=_SECONDS / 2),
    )
    dist.barrier()  # a worker may fail at once, but not while another rank still connects to this one
    return task.worker(task.rank, *task.args)
