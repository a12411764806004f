"""Runs a function on several ranks of a gloo group, each a process of this machine."""

from __future__ import annotations

import multiprocessing
import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_SECONDS = 240.0
_SECONDS_TO_END = 5.0

# The server has done once what takes seconds; the ranks are forked from it.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["preloaded"])


def run_ranks(
    worker: Callable[..., Any], store: Path, *args: Any, size: int = 2, may_die: int | None = None
) -> list[Any]:
    """What `worker(rank, *args)` returns on every rank; a rank's exception is raised here.

    Args:
        worker: a function of a module in tests/support.
        store: a file that is not there yet, by which the ranks meet.
        args: the same for all ranks.
        size: ranks.
        may_die: a rank that may end without a result, which is then None.
    """
    pipes = [_CONTEXT.Pipe() for _ in range(size)]
    processes = [
        _CONTEXT.Process(target=_rank, args=(worker, rank, size, str(store), theirs, args))
        for rank, (_, theirs) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for _, theirs in pipes:
        theirs.close()
    try:
        answers = [_receive(ours) for ours, _ in pipes]
    finally:
        for ours, _ in pipes:
            ours.close()  # the ranks wait for this
        for process in processes:
            process.join(_SECONDS_TO_END)
            process.kill()
            process.join()
    failures = [f"rank {rank}: {text}" for rank, (_, text) in enumerate(answers) if text and rank != may_die]
    if failures:
        raise RuntimeError("\n".join(failures))
    return [result for result, _ in answers]


def _receive(connection: Connection) -> tuple[Any, str | None]:
    """A rank's result, and how it failed."""
    if not connection.poll(_SECONDS):
        return None, f"no result after {_SECONDS:g} s"
    try:
        # Pickled here: a connection's own way would share tensors' memory with a process that has ended.
        answer: tuple[Any, str | None] = pickle.loads(connection.recv_bytes())
    except EOFError:
        return None, "ended without a result"
    return answer


def _rank(
    worker: Callable[..., Any], rank: int, size: int, store: str, connection: Connection, args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    try:
        timeout = timedelta(seconds=_SECONDS / 2)
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timeout)
        dist.barrier()  # a worker may fail at once, but not while another rank still connects to this one
        connection.send_bytes(pickle.dumps((worker(rank, *args), None)))
    except BaseException:
        # A failed rank ends at once: gloo then fails the collectives in which the other ranks wait for it.
        connection.send_bytes(pickle.dumps((None, traceback.format_exc())))
        return
    # gloo may still be connecting the others to this rank, so no rank ends before the parent has all results. The
    # parent closes its end of the pipe then.
    connection.poll(None)
