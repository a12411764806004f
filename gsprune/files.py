"""Atomic writes of files, and locks between processes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["lock_file", "replacement", "sync_folder", "write_atomically"]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file atomically: after a crash the disk has either the old file or the complete new one.

    Args:
        path: the file; its folder exists.
        data: its contents.

    Raises:
        OSError: the file cannot be written; an old file is kept.
    """
    with replacement(path) as partial:
        partial.write_bytes(data)


@contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """Yield a temporary path. At the end of the block the file there replaces `path`, unless the block raises."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of files to disk, on systems that can open a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_file(path: Path, in_use: Callable[[str], str]) -> IO[str]:
    """Lock a file for this process and write the process id into it.

    Args:
        path: the lock file; created if missing.
        in_use: id of the process that has the lock -> message of the error.

    Returns:
        the open file. Closing it releases the lock, and so does the end of the process, even after a crash.

    Raises:
        ValueError: another process has the lock.
        OSError: the file cannot be written.
    """
    lock = path.open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        owner = lock.read().strip()
        lock.close()
        raise ValueError(in_use(owner)) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
