"""Data parallelism inside one process: threads that each compute a piece of a batch with one PyTorch thread.

PyTorch's own threads synchronise after every operation, so one busy core delays all of them. Workers synchronise once
per batch. The pieces do not depend on the number of workers, and their gradients are added in the order of the pieces.
So the result is bitwise the same for any number of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor, nn

from gsprune.rl.training.cores import default_workers

__all__ = ["CPU_MICROBATCH", "Workers", "start_workers"]

CPU_MICROBATCH = 64  # measured: from 256 frames on, activations do not fit into the caches of a server core
PieceT = TypeVar("PieceT")
ResultT = TypeVar("ResultT")
_MIN_ROWS = 8  # rows per piece of a forward; with fewer, libraries may use other kernels with other rounding


class Workers:
    """Threads that compute pieces of a batch side by side.

    Args:
        count: number of threads, at least 1. One worker computes in the calling thread.
        threads: PyTorch's threads in each worker.
        splits_forwards: False keeps the rows of `forward` in one piece, which is best for GPUs and compiled functions.
    """

    def __init__(self, count: int, threads: int = 1, splits_forwards: bool = True) -> None:
        self.count = count
        self._splits_forwards = splits_forwards
        self._threads = ThreadPoolExecutor(count, "worker", initializer=torch.set_num_threads, initargs=(threads,))

    def map(self, function: Callable[[PieceT], ResultT], pieces: Sequence[PieceT]) -> Iterator[ResultT]:
        """Yield `function(piece)` of every piece, in the order of the pieces.

        At most two pieces per worker are in progress, so that few results wait in memory.

        Raises:
            Exception: an error of `function`.
        """
        if self.count == 1 or len(pieces) == 1:
            yield from map(function, pieces)
            return
        waiting: deque[Future[ResultT]] = deque()
        for piece in pieces:
            if len(waiting) == 2 * self.count:
                yield waiting.popleft().result()
            waiting.append(self._threads.submit(function, piece))
        while waiting:
            yield waiting.popleft().result()

    def forward(self, function: Callable[[Tensor], ResultT], rows: Tensor) -> list[ResultT]:
        """Call `function` without gradients on pieces of a batch; return the results in the order of the pieces."""

        def call(piece: Tensor) -> ResultT:
            with torch.no_grad():  # a setting of each thread
                return function(piece)

        count = max(1, len(rows) // _MIN_ROWS) if self._splits_forwards else 1
        return list(self.map(call, torch.tensor_split(rows, count)))

    def backward(
        self,
        parameters: Sequence[nn.Parameter],
        loss_of: Callable[[PieceT], tuple[Tensor, ResultT]],
        pieces: Sequence[PieceT],
    ) -> list[ResultT]:
        """Set every `.grad` to the sum of the gradients of all pieces' losses.

        Args:
            parameters: the network's parameters; their gradients are replaced. A frozen one gets None, and so
                does one that no loss depends on.
            loss_of: piece -> (scalar loss, another result).
            pieces: the pieces of the batch.

        Returns:
            the other results of `loss_of`, in the order of the pieces.
        """
        trained = [parameter for parameter in parameters if parameter.requires_grad]

        def gradients_of(piece: PieceT) -> tuple[tuple[Tensor | None, ...], ResultT]:
            loss, result = loss_of(piece)
            return torch.autograd.grad(loss, trained, allow_unused=True), result

        results = []
        for parameter in parameters:
            parameter.grad = None
        for gradients, result in self.map(gradients_of, pieces):
            for parameter, gradient in zip(trained, gradients, strict=True):
                if gradient is None:
                    continue
                if parameter.grad is None:  # in the parameter's memory format, as `loss.backward()` leaves it
                    parameter.grad = torch.empty_like(parameter).copy_(gradient)
                else:
                    parameter.grad += gradient
            results.append(result)
        return results


def start_workers(count: int | None, torch_threads: int | None, whole_batches: bool) -> Workers:
    """The workers of this process. Sets PyTorch's number of threads, too.

    Args:
        count: number of workers; None for one on each usable core.
        torch_threads: PyTorch's threads in each worker; None for 1, or for PyTorch's own choice with whole batches.
        whole_batches: compute in the calling thread, without splitting, for GPUs and compiled functions.
    """
    if whole_batches:
        if torch_threads is not None:
            torch.set_num_threads(torch_threads)
        return Workers(1, splits_forwards=False)
    threads = torch_threads or 1
    torch.set_num_threads(threads)
    return Workers(count or default_workers(threads), threads)
