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

# The server imports once what takes seconds (an optimizer imports torch._dynamo); its children are forked from it.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch._dynamo", "gsprune.rl.ppo", "gsprune.rl.dqn"])


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
    pipes = [_CONTEXT.Pipe(duplex=False) for _ in range(size)]
    processes = [
        _CONTEXT.Process(target=_rank, args=(worker, rank, size, str(store), sender, args))
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for _, sender in pipes:
        sender.close()
    try:
        answers = [_receive(receiver) for receiver, _ in pipes]
    finally:
        for process in processes:
            process.join(5)
            process.kill()
            process.join()
        for receiver, _ in pipes:
            receiver.close()
    failures = [f"rank {rank}: {text}" for rank, (_, text) in enumerate(answers) if text and rank != may_die]
    if failures:
        raise RuntimeError("\n".join(failures))
    return [result for result, _ in answers]


def _receive(receiver: Connection) -> tuple[Any, str | None]:
    """A rank's result, and how it failed."""
    if not receiver.poll(_SECONDS):
        return None, f"no result after {_SECONDS:g} s"
    try:
        # Pickled here: a connection's own way would share tensors' memory with a process that has ended.
        answer: tuple[Any, str | None] = pickle.loads(receiver.recv_bytes())
    except EOFError:
        return None, "ended without a result"
    return answer


def _rank(
    worker: Callable[..., Any], rank: int, size: int, store: str, sender: Connection, args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timedelta(seconds=_SECONDS / 2)
    )
    try:
        dist.barrier()  # a rank that ends while another still connects makes the other fail
        sender.send_bytes(pickle.dumps((worker(rank, *args), None)))
    except BaseException:
        sender.send_bytes(pickle.dumps((None, traceback.format_exc())))
    finally:
        sender.close()
