"""The processes of one data-parallel training, and the collectives between them.

Small things (rewards, flags, states of environments) go through the host; gradients stay where they are. The group is
of gloo on the CPU, and of gloo and NCCL together where the network is on GPUs.
"""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gsprune.errors import DistributedError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Ranks", "joined_ranks", "ranks_asked_for"]

T = TypeVar("T")
DType = TypeVar("DType", bound=np.generic)

_DIGEST_LETTERS = 16


class Ranks:
    """All processes of a training; a process alone is one of one, for which everything here costs nothing.

    Attributes:
        rank: the number of this process, from 0.
        size: how many there are.
        local_rank: its number among those of this machine.
        group: of all of them; None for a process alone.
    """

    def __init__(self, group: ProcessGroup | None = None, local_rank: int = 0) -> None:
        """Use `joined_ranks`; without arguments, a process alone."""
        self.group = group
        self.local_rank = local_rank
        self.rank, self.size = 0, 1
        if group is not None:
            import torch.distributed as dist

            self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    @property
    def is_first(self) -> bool:
        """True for rank 0, which writes the files and prints."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """True if this is the only process."""
        return self.group is None

    def share(self, total: int, name: str) -> range:
        """This rank's part of `total` things: the ranks' parts follow each other and differ by one at most.

        Args:
            total: how many there are.
            name: what they are called in a complaint.

        Raises:
            ValueError: there are fewer than ranks.
        """
        if total < self.size:
            raise ValueError(f"`{name}` must be at least the number of processes, {self.size}, got {total}")
        return range(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Per flag, whether it is set on any rank; the same answer on all."""
        if self.is_alone:
            return flags
        counts = self.sum(torch.tensor(flags, dtype=torch.int64))
        return tuple(bool(count) for count in counts.tolist())

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor` becomes the sum over all ranks, in place, the same on all; returns it."""
        if not self.is_alone:
            import torch.distributed as dist

            with self._collective():
                dist.all_reduce(tensor, group=self.group)
        return tensor

    def columns(self, array: npt.NDArray[DType]) -> npt.NDArray[DType]:
        """The ranks' columns next to each other, on all ranks.

        Args:
            array: (T, n); T is the same on all ranks, n is the rank's own.

        Returns:
            (T, sum of all n).
        """
        return array if self.is_alone else np.concatenate(self._all(array), axis=1)

    def weighted_mean(self, arrays: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
        """The mean over the ranks, the same on all of them to the last bit.

        Args:
            arrays: name -> float64 tensor on the host; equal names and shapes on all ranks.
            weight: how much this rank counts.
        """
        if self.is_alone:
            return dict(arrays)
        parts = self._all((dict(arrays), weight))
        total = sum(share for _, share in parts)
        # Added in the order of the ranks: an all-reduce promises no order.
        return {name: torch.stack([part[name] * (share / total) for part, share in parts]).sum(0) for name in arrays}

    def gather(self, value: T) -> list[T] | None:
        """The values of all ranks, in their order, on the first; None on the others."""
        if self.is_alone:
            return [value]
        import torch.distributed as dist

        found: list[Any] | None = [None] * self.size if self.is_first else None
        with self._collective():
            dist.gather_object(value, found, group=self.group, group_dst=0)
        return found

    def from_first(self, function: Callable[[], T]) -> T:
        """Call `function` on the first rank alone and return its result on all ranks.

        Raises:
            DistributedError: on the other ranks, if it failed on the first.
        """
        if self.is_alone:
            return function()
        import torch.distributed as dist

        answer: list[Any] = [None, None]
        failure: Exception | None = None
        if self.is_first:
            try:
                answer[0] = function()
            except Exception as error:
                failure = error
                answer[1] = str(error)
        with self._collective():
            dist.broadcast_object_list(answer, group=self.group, group_src=0)
        if failure is not None:
            raise failure
        if answer[1] is not None:
            raise DistributedError(f"rank 0 failed: {answer[1]}")
        result: T = answer[0]
        return result

    def check_equal(self, what: str, model: nn.Module) -> None:
        """Make sure that all ranks hold the same network, to the last bit.

        Raises:
            DistributedError: they do not; on all ranks, with the hashes of all.
        """
        if self.is_alone:
            return
        digest = hashlib.sha256()
        for name, tensor in model.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        digests = self._all(digest.hexdigest()[:_DIGEST_LETTERS])
        if len(set(digests)) > 1:
            found = ", ".join(f"rank {rank} has {text}" for rank, text in enumerate(digests))
            raise DistributedError(
                f"{what} differ between the ranks (hashes: {found}); nothing was changed. Go on from the last"
                " checkpoint, on machines of one kind, with one version of PyTorch"
            )

    def _all(self, value: T) -> list[T]:
        """The values of all ranks, in their order, on all."""
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        with self._collective():
            dist.all_gather_object(found, value, group=self.group)
        return found

    @contextmanager
    def _collective(self) -> Iterator[None]:
        """Tell the loss of a rank from other errors."""
        try:
            yield
        except RuntimeError as error:
            raise DistributedError(
                f"another process of this training has ended or does not answer ({str(error).partition('. ')[0]})"
            ) from error


def ranks_asked_for() -> int:
    """How many processes the launcher has started, by the environment that torchrun sets; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


@contextmanager
def joined_ranks(with_gpus: bool, timeout_minutes: float) -> Iterator[Ranks]:
    """Join the processes that a launcher like torchrun has started; without one, a process alone.

    Args:
        with_gpus: whether gradients lie on GPUs.
        timeout_minutes: how long to wait for a rank that does not answer. One whose process has ended is noticed at
            once by gloo.

    Raises:
        ValueError: `timeout_minutes` is not above 0.
    """
    if not timeout_minutes > 0:
        raise ValueError(f"`rank_timeout_minutes` must be above 0, got {timeout_minutes}")
    if ranks_asked_for() == 1:
        yield Ranks()
        return
    import torch.distributed as dist
    import torch.distributed.nn  # imported later (optimizers do), its default arguments would hold the group for ever

    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if with_gpus:
        torch.cuda.set_device(local_rank)
    backend = "cpu:gloo,cuda:nccl" if with_gpus else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
    ranks = Ranks(dist.group.WORLD, local_rank)
    yield ranks
    # Not after an error: taking leave would wait for a rank that is gone.
    # Nothing may hold the group now: its threads would go on and could meet the end of the interpreter, which aborts.
    ranks.group = None
    gc.collect()  # trainers are in cycles
    dist.destroy_process_group()
