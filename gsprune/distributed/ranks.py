"""The processes of one data-parallel training, and the collectives between them.

Small data (rewards, flags, states of environments) is exchanged through the host; gradients stay on their device. The
process group uses gloo on the CPU, and both gloo and NCCL if the network is on GPUs.
"""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gsprune.checks import check_number
from gsprune.errors import DistributedError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Ranks", "joined_ranks"]

T = TypeVar("T")
DType = TypeVar("DType", bound=np.generic)

_DIGEST_LETTERS = 16


class Ranks:
    """The processes of a training. With a single process, all collectives return at once.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: number of this process among those of its machine.
        group: the process group; None for a single process.
    """

    def __init__(self, group: ProcessGroup | None = None, local_rank: int = 0) -> None:
        """Use `joined_ranks` instead. Without arguments this is a single process."""
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
        """This rank's part of `total` items. Parts are contiguous, and their sizes differ by at most one.

        Raises:
            ValueError: there are fewer items than ranks.
        """
        if total < self.size:
            raise ValueError(f"`{name}` must be at least the number of processes, {self.size}, got {total}")
        return range(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For every flag True if it is set on any rank; the result is the same on all ranks."""
        if self.is_alone:
            return flags
        counts = self.sum(torch.tensor(flags, dtype=torch.int64))
        return tuple(bool(count) for count in counts.tolist())

    def sum(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` in place by the sum over all ranks, which is the same on all; return it."""
        if not self.is_alone:
            import torch.distributed as dist

            with self._collective():
                dist.all_reduce(tensor, group=self.group)
        return tensor

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all ranks. A missing gradient counts as zeros.

        Each rank differentiates its part of the batch's loss, so the sum is the gradient of the whole loss.

        Args:
            parameters: the network's parameters, in the same order on all ranks.
        """
        if self.is_alone:
            return
        gradients: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for parameter in parameters:
            if parameter.requires_grad:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = gradient
                gradients.setdefault((gradient.dtype, gradient.device), []).append(gradient)
        for same in gradients.values():  # one vector for each dtype: a collective per gradient would take longer
            sums = self.sum(torch.cat([gradient.flatten() for gradient in same]))
            for gradient, part in zip(same, torch.split(sums, [each.numel() for each in same]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def gather_columns(self, array: npt.NDArray[DType]) -> npt.NDArray[DType]:
        """Concatenate the columns of all ranks, on all ranks.

        Args:
            array: (T, n); T is the same on all ranks, n is the rank's own.

        Returns:
            (T, sum of all n).
        """
        return array if self.is_alone else np.concatenate(self._all_gather(array), axis=1)

    def weighted_mean(self, tensors: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
        """The mean over the ranks, the same on all of them to the last bit.

        Args:
            tensors: name -> float64 tensor on the host; equal names and shapes on all ranks.
            weight: the weight of this rank.
        """
        if self.is_alone:
            return dict(tensors)
        parts = self._all_gather((dict(tensors), weight))
        total = sum(share for _, share in parts)
        # Add in the order of the ranks: an all-reduce guarantees no order.
        return {name: torch.stack([part[name] * (share / total) for part, share in parts]).sum(0) for name in tensors}

    def gather(self, value: T) -> list[T] | None:
        """The values of all ranks, by rank, on the first rank; None on the others."""
        if self.is_alone:
            return [value]
        import torch.distributed as dist

        found: list[Any] | None = [None] * self.size if self.is_first else None
        with self._collective():
            dist.gather_object(value, found, group=self.group, group_dst=0)
        return found

    def from_first(self, function: Callable[[], T]) -> T:
        """Call `function` on the first rank only, and return its result on all ranks.

        Raises:
            DistributedError: on the other ranks, if `function` failed on the first.
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
        """Check that all ranks have the same network, bit for bit.

        Raises:
            DistributedError: networks differ. It is raised on all ranks and shows all hashes.
        """
        if self.is_alone:
            return
        digest = hashlib.sha256()
        for name, tensor in model.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        digests = self._all_gather(digest.hexdigest()[:_DIGEST_LETTERS])
        if len(set(digests)) > 1:
            found = ", ".join(f"rank {rank} has {text}" for rank, text in enumerate(digests))
            raise DistributedError(
                f"{what} differ between the ranks (hashes: {found}); nothing was changed. Resume from the last"
                " checkpoint, on machines of one kind, with one version of PyTorch"
            )

    def _all_gather(self, value: T) -> list[T]:
        """The values of all ranks, by rank, on all ranks."""
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        with self._collective():
            dist.all_gather_object(found, value, group=self.group)
        return found

    @contextmanager
    def _collective(self) -> Iterator[None]:
        """Raise a `DistributedError` for errors of a collective."""
        try:
            yield
        except RuntimeError as error:
            raise DistributedError(
                f"another process of this training has ended or does not answer ({str(error).partition('. ')[0]})"
            ) from error


@contextmanager
def joined_ranks(with_gpus: bool, timeout_minutes: float) -> Iterator[Ranks]:
    """Join the processes that a launcher like torchrun has started; without one, yield a single process.

    Args:
        with_gpus: True if gradients are on GPUs.
        timeout_minutes: time to wait for a rank that does not answer. Gloo notices at once if a process has ended.

    Raises:
        ValueError: `timeout_minutes` is not above 0.
    """
    check_number("rank_timeout_minutes", timeout_minutes, above=0)
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        yield Ranks()
        return
    import torch.distributed as dist
    import torch.distributed.nn  # a later import (by optimizers) would keep the group alive in default arguments

    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if with_gpus:
        torch.cuda.set_device(local_rank)
    backend = "cpu:gloo,cuda:nccl" if with_gpus else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
    ranks = Ranks(dist.group.WORLD, local_rank)
    yield ranks
    # After an error the group is not destroyed, because that would wait for a rank that has ended. Otherwise drop all
    # references to the group: its threads would outlive the interpreter, which then aborts.
    ranks.group = None
    gc.collect()  # trainers are part of reference cycles
    dist.destroy_process_group()
