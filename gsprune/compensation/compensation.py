"""Fit the maps of all consumers: one dense and one pruned forward over the calibration data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from gsprune.compensation.consumer import Consumer, find_consumers, find_output_axes
from gsprune.compensation.moments import Moments
from gsprune.compensation.solve import Map, solve, solve_bias
from gsprune.compensation.uses import Use, UseWatcher
from gsprune.compensation.weights import as_matrices, from_matrices
from gsprune.errors import GspruneError
from gsprune.rewrite.tensors import canonical_tensors
from gsprune.tracing.example import Example
from gsprune.tracing.graph import Graph, IntArray
from gsprune.tracing.tracer import plain_operations
from gsprune.tracing.undisturbed import undisturbed

__all__ = ["MAX_COLUMNS", "Compensation", "CompensationReport", "ConsumerReport", "Mode"]

Mode = Literal["bias", "linear"]

# A longer input axis (a flattened picture) is compensated per channel: its moments would take 128 MB and more.
MAX_COLUMNS = 4096
# Samples that all calibration batches together give one consumer: this many, or so many per input.
_MIN_ROWS = 8192
_ROWS_PER_INPUT = 8


@dataclass(frozen=True, slots=True)
class ConsumerReport:
    """How well one consumer was compensated.

    Attributes:
        weight: the consumer's weight.
        explained: the share of what its inputs lost that the map gives back, weighted by the weights; 1 is all.
    """

    weight: str
    explained: float


@dataclass(frozen=True)
class CompensationReport:
    """What compensation did.

    Attributes:
        consumers: the compensated ones, in the order of the forward.
        left: weight -> why a consumer was left as it is.
        frames: calibration examples that were used.
    """

    consumers: tuple[ConsumerReport, ...]
    left: Mapping[str, str]
    samples: int

    def __str__(self) -> str:
        shares = sorted(consumer.explained for consumer in self.consumers)
        text = f"{len(shares)} consumers compensated"
        if shares:
            text += f", {100 * shares[len(shares) // 2]:.1f} % of the lost variance explained (median)"
        return text + (f"; left as they are: {', '.join(self.left)}" if self.left else "")


@dataclass
class _Fit:
    """State of one consumer: what its map is fitted on and applied to."""

    consumer: Consumer
    dense: Tensor  # the dense weight
    base: Tensor  # the sliced weight, before compensation
    target: Tensor  # the weight of the pruned network
    constant: Tensor | None  # the bias or running mean of the pruned network that takes the constant
    constant_base: Tensor | None
    sign: float
    map: Map | None = None
    moments: Moments | None = None
    use: Use | None = None


class Compensation:
    """Compensates one step: `record` while the network is dense, then `fit` when it is pruned.

    Args:
        model: the network; dense when this is called.
        graph: its groups.
        kept: tensor -> {axis: positions that stay}, of everything that is cut.
        calibration: calls of the network, one per batch.
        mode: "linear", or "bias" for the constants alone.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: Graph,
        kept: Mapping[str, Mapping[int, IntArray]],
        calibration: Sequence[Example],
        mode: Mode = "linear",
    ) -> None:
        self.model = model
        self.kept = kept
        self.calibration = calibration
        self.mode = mode
        found, self.left = find_consumers(graph, kept, MAX_COLUMNS)
        self.consumers = {consumer.weight: consumer for consumer in found}
        axes = {consumer.weight: consumer.axis for consumer in found}
        self._axes = {**find_output_axes(graph, kept), **axes}
        self.tensors = canonical_tensors(model)
        # Storages of the dense weights: the pruned network's parameters get others.
        self.dense = {name: self.tensors[name].detach() for name in self.consumers}
        self._inputs: dict[tuple[int, str, int], tuple[Tensor, Tensor]] = {}
        self._num_uses: dict[tuple[int, str], int] = defaultdict(int)
        self._num_rows: dict[tuple[int, str], int] = {}
        self._targets: dict[str, str | None] = {}

    # -- the dense network --------------------------------------------------------------------------------------------

    def record(self) -> None:
        """Run the dense network and keep samples of every consumer's inputs."""
        watchers = []
        for batch, example in enumerate(self.calibration):
            watcher = self._watch(lambda use, batch=batch: self._record_use(batch, use))
            self._run(watcher, example)
            watchers.append(watcher)
        for name in self.consumers:
            reasons = [f"{w.unsupported[name]} reads it" for w in watchers if name in w.unsupported]
            unused = [] if any(w.constants.get(name) for w in watchers) else ["the calibration data does not reach it"]
            for reason in (reasons or unused)[:1]:
                self.left[name] = reason
            targets = {watcher.constant_of(name) for watcher in watchers if watcher.constants.get(name)}
            self._targets[name] = targets.pop() if len(targets) == 1 else None

    def _watch(self, on_use: Callable[[Use], None]) -> UseWatcher:
        return UseWatcher(self.tensors, self._axes, on_use)

    def _run(self, watcher: UseWatcher, example: Example) -> None:
        with undisturbed(self.model), plain_operations(self.model), watcher:
            example.call(self.model)

    def _record_use(self, batch: int, use: Use) -> None:
        if use.weight not in self.consumers:
            self.left[use.weight] = "the channels that it reads are channels that it makes"
            return
        number = self._num_uses[batch, use.weight]
        self._num_uses[batch, use.weight] += 1
        rows = _num_rows(use)
        if number == 0:
            self._num_rows[batch, use.weight] = rows
        most = max(_MIN_ROWS, _ROWS_PER_INPUT * use.inputs.shape[use.channel_axis]) // len(self.calibration)
        chosen = _sampled_rows(rows, most, batch, number).to(use.inputs.device)
        self._inputs[batch, use.weight, number] = chosen, _rows(use, chosen)

    # -- the pruned network -------------------------------------------------------------------------------------------

    def fit(self) -> CompensationReport:
        """Run the pruned network; each consumer is solved and written when the forward arrives at it.

        Raises:
            GspruneError: the network computes NaN or infinities on the calibration data.
        """
        self.fits = {
            name: self._new_fit(consumer) for name, consumer in self.consumers.items() if name not in self.left
        }
        for batch, example in enumerate(self.calibration):
            seen: dict[str, int] = defaultdict(int)
            self._run(self._watch(lambda use, batch=batch, seen=seen: self._fit_use(batch, seen, use)), example)
        return self._report()

    def _new_fit(self, consumer: Consumer) -> _Fit:
        weight = self.tensors[consumer.weight].detach()
        dense = self.dense[consumer.weight]
        for axis, positions in self.kept.get(consumer.weight, {}).items():
            if axis != consumer.axis:
                dense = dense.index_select(axis, torch.from_numpy(positions).to(dense.device))
        name = self._targets[consumer.weight]
        constant = None if name is None else self.tensors[name].detach()
        base = None if constant is None else constant.clone()
        sign = -1.0 if name is not None and name.endswith("running_mean") else 1.0
        return _Fit(consumer, dense, weight.clone(), weight, constant, base, sign)

    def _fit_use(self, batch: int, seen: dict[str, int], use: Use) -> None:
        """Add one batch at a consumer's first use, solve, and write the weight that the operation is about to read."""
        fit = self.fits.get(use.weight)
        number = seen[use.weight]
        seen[use.weight] += 1
        if fit is None or number > 0:
            return
        if _num_rows(use) != self._num_rows[batch, use.weight]:
            self.left[use.weight] = "the channels of another axis of its inputs are removed, too"
            del self.fits[use.weight]
            return
        kept = _kept_of(fit.consumer, use)
        for other in range(self._num_uses[batch, use.weight]):
            chosen, dense = self._inputs[batch, use.weight, other]
            dense = _grouped(dense, fit.consumer.columns, use.groups)
            if other == 0:
                columns = fit.consumer.kept_columns
                pruned = _grouped(_rows(use, chosen), columns, use.groups)
            else:  # the pruned network has not come there yet
                pruned = dense.gather(2, kept[:, None].expand(-1, dense.shape[1], -1))
            if fit.moments is None:
                fit.moments = Moments.empty(use.groups, dense.shape[2], pruned.shape[2], dense.device)
            fit.moments.add(dense, pruned, kept, use.padding)
        fit.use = use
        assert fit.moments is not None
        if not bool(torch.isfinite(fit.moments.factor).all()):
            raise GspruneError(
                f"`calibration` makes the inputs of {use.weight!r} NaN or infinite; nothing was changed. Pass inputs"
                " that the network was made for"
            )
        self._solve(fit, use)

    def _solve(self, fit: _Fit, use: Use) -> None:
        assert fit.moments is not None
        if self.mode == "linear":
            fit.map = solve(fit.moments, fit.constant is not None)
        elif fit.constant is not None:
            fit.map = solve_bias(fit.moments)
        else:
            return
        _apply(fit, use)

    def _report(self) -> CompensationReport:
        reports = []
        for name, fit in self.fits.items():
            if fit.map is None or fit.use is None:
                self.left.setdefault(name, "it has no bias that could take a constant")
                continue
            weights = _matrices(fit.dense, fit.consumer, fit.use).double().square().sum((1, 3))
            lost, unexplained = (float((weights * value).sum()) for value in (fit.map.lost, fit.map.unexplained))
            reports.append(ConsumerReport(name, 1.0 if lost <= 0 else 1 - unexplained / lost))
        samples = max((int(fit.moments.samples) for fit in self.fits.values() if fit.moments is not None), default=0)
        return CompensationReport(tuple(reports), dict(self.left), samples)


def _apply(fit: _Fit, use: Use) -> None:
    """Write W' = W A and the constant W c into the pruned network."""
    assert fit.map is not None
    dense = _matrices(fit.dense, fit.consumer, use).double()
    if fit.map.weight is not None:
        change = torch.einsum("goip,gik->gokp", dense, fit.map.weight)
        fit.target.copy_(fit.base.double() + _as_weight(change, fit.target, fit.consumer, use))
    if fit.constant is not None and fit.map.constant is not None:
        assert fit.constant_base is not None
        shift = torch.einsum("goip,gi->go", dense, fit.map.constant).flatten()
        fit.constant.copy_(fit.constant_base.double() + fit.sign * shift)


def _matrices(weight: Tensor, consumer: Consumer, use: Use) -> Tensor:
    """(groups, outputs, channels, positions)."""
    if consumer.columns.shape[1] > 1:
        order = torch.from_numpy(consumer.columns.reshape(-1)).to(weight.device)
        return weight.movedim(consumer.axis, 1)[:, order].reshape(1, -1, *consumer.columns.shape)
    return as_matrices(weight, consumer.axis, use.groups, use.transposed)


def _as_weight(matrices: Tensor, like: Tensor, consumer: Consumer, use: Use) -> Tensor:
    """Undo `_matrices`, for the pruned weight."""
    if consumer.columns.shape[1] > 1:
        order = torch.from_numpy(consumer.kept_columns.reshape(-1)).to(like.device)
        flat = torch.empty_like(matrices[0].flatten(1))
        flat[:, order] = matrices[0].flatten(1)
        return flat.movedim(1, consumer.axis)
    return from_matrices(matrices, like, consumer.axis, use.transposed)


def _kept_of(consumer: Consumer, use: Use) -> Tensor:
    """(groups, kept) int64: which inputs of each group stay."""
    kept = torch.from_numpy(consumer.kept_channels).to(use.inputs.device)
    if use.transposed and use.groups > 1:
        kept = kept.reshape(use.groups, -1)
        return kept - torch.arange(use.groups, device=kept.device)[:, None] * (len(consumer.columns) // use.groups)
    return kept.expand(use.groups, -1)


def _sampled_rows(rows: int, most: int, *seed: int) -> Tensor:
    """Row numbers, evenly spread with jitter; all where they are few enough."""
    if rows <= most:
        return torch.arange(rows)
    jitter = np.random.default_rng(seed).random(most)
    return torch.from_numpy(((np.arange(most) + jitter) * (rows / most)).astype(np.int64).clip(max=rows - 1))


def _num_rows(use: Use) -> int:
    return use.inputs.numel() // use.inputs.shape[use.channel_axis]


def _rows(use: Use, chosen: Tensor) -> Tensor:
    """(rows, channels): the inputs at some of all places in the batch."""
    x = use.inputs.detach().movedim(use.channel_axis, -1)
    if x.ndim == 2:
        return x[chosen]
    return x[torch.unravel_index(chosen, x.shape[:-1])]


def _grouped(rows: Tensor, columns: IntArray, groups: int) -> Tensor:
    """(groups, samples, channels of a group) of rows of inputs."""
    if columns.shape[1] > 1:
        order = torch.from_numpy(columns.T.copy()).to(rows.device)  # (positions, channels)
        return rows[:, order].flatten(0, 1)[None]
    return rows.reshape(len(rows), groups, -1).transpose(0, 1)
