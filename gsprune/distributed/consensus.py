"""One pruning step on several ranks: statistics are averaged, and choices are compared before anything is changed.

Every rank takes part in the same sequence of *exchanges*. An exchange is an all-gather of one record of fixed size. A
record has the name of its stage and the rank's data, or the error of the rank. So if a rank fails, all ranks fail at
their next exchange, and no rank waits forever.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from gsprune.arrays import BoolArray, Float64Array
from gsprune.errors import DistributedError
from gsprune.tracing.structure import Structure

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Consensus", "consensus_of"]

_RECORD_BYTES = 512
_DIGEST_LETTERS = 16
_MESSAGE_LETTERS = 240
_WAY_OUT = (
    "start with equal weights on all ranks (DDP does that; otherwise use torch.distributed.broadcast), average"
    " gradients before the step, and give all ranks the same options"
)


class Consensus:
    """The ranks of a process group during one step.

    Args:
        group: the process group.
        device: the network's device. A group that supports only NCCL exchanges tensors there, others on the host.

    Raises:
        TypeError: `group` is not a process group that this process belongs to.
        ValueError: the group supports only NCCL, but the network is on the CPU.
    """

    def __init__(self, group: ProcessGroup, device: torch.device) -> None:
        import torch.distributed as dist

        if not isinstance(group, dist.ProcessGroup):
            raise TypeError(
                "`process_group` must be a torch.distributed process group that this rank belongs to, e.g."
                f" torch.distributed.group.WORLD after init_process_group, got {group!r}"
            )
        only_cuda = dist.get_backend(group) == "nccl"
        if only_cuda and device.type != "cuda":
            raise ValueError(
                f"`process_group` uses NCCL, which supports only CUDA tensors, but the model is on {str(device)!r}:"
                " move it to the GPU, or pass a group that uses gloo"
            )
        self._group = group
        self._ranks = dist.get_process_group_ranks(group)
        self._device = device if only_cuda else torch.device("cpu")
        self._is_over = False

    def stacked(self, statistics: Mapping[str, Float64Array]) -> dict[str, Float64Array]:
        """Name -> (ranks, ...), the arrays of all ranks, bitwise the same on all ranks.

        Args:
            statistics: name -> float64 array; equal names and shapes on all ranks.

        Raises:
            DistributedError: names or shapes differ, or another rank has failed.
        """
        shapes = {name: array.shape for name, array in statistics.items()}
        self.check("which statistics to gather", repr(sorted(shapes.items())).encode())
        names = sorted(statistics)
        flat = np.concatenate([np.zeros(0), *(statistics[name].ravel() for name in names)])
        # Gather, so that callers can add in the order of the ranks: an all-reduce guarantees no order.
        parts = torch.stack(self._all_gather(torch.from_numpy(flat).to(self._device))).cpu().numpy()
        ends = np.cumsum([statistics[name].size for name in names])
        pieces = np.split(parts, ends[:-1], axis=1)
        return {name: piece.reshape(-1, *shapes[name]) for name, piece in zip(names, pieces, strict=True)}

    def check_choice(self, structure: Structure, keep: BoolArray, final: bool) -> None:
        """Check that all ranks have the same groups and keep the same units.

        Args:
            structure: the present groups of the network.
            keep: (units,) bool, True for units to keep.
            final: True if this is the step's last exchange, because it changes nothing.

        Raises:
            DistributedError: groups or units differ, or another rank has failed.
        """
        names = repr([(group.name, group.width) for group in structure.traced.groups])
        axes = repr(sorted(structure.of_axis.items()))
        arrays = (structure.first_unit, structure.ids, structure.starts, keep)
        parts = (names.encode(), axes.encode(), *(array.tobytes() for array in arrays))
        self.check("which channels to keep", *parts, final=final)

    def check(self, what: str, *parts: bytes, final: bool = False) -> None:
        """Check that all ranks have the same data at this stage.

        Args:
            what: the name of the stage and of the data, for messages.
            parts: the data to compare.
            final: True if this is the step's last exchange.

        Raises:
            DistributedError: data differ, or another rank has failed.
        """
        digest = hashlib.sha256(what.encode())
        for part in parts:
            digest.update(part)
        records = self._exchange({"digest": digest.hexdigest()[:_DIGEST_LETTERS]}, what)
        digests = [record["digest"] for record in records]
        if len(set(digests)) > 1:
            found = ", ".join(f"rank {rank} has {text}" for rank, text in zip(self._ranks, digests, strict=True))
            raise DistributedError(
                f"the ranks do not agree on {what} (hashes: {found}); nothing was changed on any of them: {_WAY_OUT}"
            )
        self._is_over = final

    def from_first(self, what: str, measure: Callable[[], float]) -> float:
        """Measure on the first rank, because ranks may measure different values; return the result on all ranks.

        Args:
            what: the name of the stage.
            measure: called on the first rank only.

        Raises:
            DistributedError: another rank has failed.
        """
        import torch.distributed as dist

        result = measure() if dist.get_rank(self._group) == 0 else None
        first_result: float = self._exchange({"result": result}, what)[0]["result"]
        return first_result

    def fail(self, error: BaseException) -> None:
        """Report an error to the other ranks, which then fail at their next exchange."""
        if self._is_over:
            return
        self._is_over = True
        text = f"{type(error).__name__}: {error}"[:_MESSAGE_LETTERS]
        try:
            self._gather_records({"error": text.encode("ascii", "replace").decode()})
        except DistributedError:
            return  # this rank raises its own error

    def _exchange(self, record: dict[str, Any], what: str) -> list[dict[str, Any]]:
        """The records of all ranks, by rank."""
        records = self._gather_records({"stage": what, **record})
        for rank, other in zip(self._ranks, records, strict=True):
            if "error" in other:
                self._is_over = True
                raise DistributedError(f"rank {rank} failed ({other['error']}); nothing was changed on any rank")
        stages = [other["stage"] for other in records]
        if len(set(stages)) > 1:
            self._is_over = True
            found = ", ".join(f"rank {rank} at {text!r}" for rank, text in zip(self._ranks, stages, strict=True))
            raise DistributedError(
                f"the ranks are at different places of the step ({found}); nothing was changed on any of them:"
                f" {_WAY_OUT}"
            )
        return records

    def _gather_records(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        text = json.dumps(record).encode().ljust(_RECORD_BYTES)
        encoded = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(self._device)
        return [json.loads(bytes(other.tolist())) for other in self._all_gather(encoded)]

    def _all_gather(self, tensor: Tensor) -> list[Tensor]:
        import torch.distributed as dist

        parts = [torch.empty_like(tensor) for _ in self._ranks]
        try:
            dist.all_gather(parts, tensor, group=self._group)
        except RuntimeError as error:
            self._is_over = True
            raise DistributedError(
                f"another rank has ended or does not answer ({str(error).partition('. ')[0]}); nothing was changed"
                " on this one"
            ) from error
        return parts


@contextmanager
def consensus_of(group: ProcessGroup | None, model: object) -> Iterator[Consensus | None]:
    """A context with the consensus of a step. Errors inside are reported to the other ranks.

    Args:
        group: the process group; None for a single process.
        model: the network, whose device is used for the records.
    """
    if group is None:
        yield None
        return
    tensor = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    consensus = Consensus(group, torch.device("cpu") if tensor is None else tensor.device)
    try:
        yield consensus
    except DistributedError:
        raise
    except BaseException as error:
        consensus.fail(error)
        raise
