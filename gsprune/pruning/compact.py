"""The public call `compact`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from gsprune.arrays import BoolArray
from gsprune.backends import BackendName, get_backend
from gsprune.checks import check_flag, check_number
from gsprune.compensation.calibration import calibration_calls
from gsprune.compensation.folding import ConstantFolding
from gsprune.compensation.removable import CompactionReport, RemovableUnits
from gsprune.distributed.consensus import consensus_of
from gsprune.pruning.checked_model import checked_model
from gsprune.pruning.execution import execute
from gsprune.pruning.report import PruneReport
from gsprune.pruning.session import open_session, with_binding
from gsprune.rewrite.followers import Follower, as_followers
from gsprune.rewrite.network import RewriteOptions
from gsprune.rewrite.optimizers.wrappers import as_optimizers
from gsprune.selection import Selection

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["compact"]


def compact(
    model: nn.Module,
    *,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    followers: nn.Module | Sequence[Follower] = (),
    example_inputs: Any = None,
    forward: Callable[..., Any] | None = None,
    calibration: Any = None,
    tolerance: float = 0.0,
    ignore: Sequence[str | nn.Module | type] = (),
    backend: BackendName = "auto",
    dry_run: bool = False,
    process_group: ProcessGroup | None = None,
) -> PruneReport:
    """Remove channels that do not affect the network's output.

    These are channels with the same value for every input (their incoming weights are zero, as after unstructured
    pruning) and channels whose outgoing weights are zero. With `calibration` they are also channels that are constant
    on it (dormant ones). Constants are added to the biases of the layers that read them. Nothing is retrained.

        >>> import torch, gsprune
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> with torch.no_grad():
        ...     _ = model[0].weight[2:5].zero_()  # three units that only have their bias
        ...     _ = model[2].weight[:, 7].zero_()  # one unit that no layer reads
        >>> report = gsprune.compact(model, example_inputs=torch.zeros(2, 4))
        >>> model[0].out_features
        4
        >>> print(report.compaction)
        compacted: 3 constant, 1 unread, 0 dormant

    A channel stays if it is the last one of its group, or if no bias can take its constant. A constant other than zero
    stays if a zero-padded convolution reads it. Channels that are combined without a weight stay, too (in a layer norm,
    a softmax over channels, or queries and keys of an attention).

    Args:
        model: the network; changed in place, as by `prune_step`.
        optimizer: a ``torch.optim.Optimizer`` or a sequence of them, whose states are sliced along.
        followers: modules of the same architecture, which lose the same channels and get the same constants.
        example_inputs: tensor, tuple or dict; needed at most once per model.
        forward: callable(model, *example_inputs) -> outputs; None uses that of an earlier step, or calls the model.
        calibration: a few hundred inputs for finding dormant channels: a tensor, tuple or dict like `example_inputs`,
            or an iterable of them. None uses the weights only.
        tolerance: the largest spread of a dormant channel's values, as a fraction of the largest value in its
            consumer's input, in [0, 1). With 0 the outputs on the calibration data do not change.
        ignore: module names (globs), modules or module types whose outputs keep their width.
        backend: "auto", "cpp", "triton" or "torch".
        dry_run: only report what would be removed.
        process_group: the ``torch.distributed`` group whose ranks train this network together; all of them must call.
            A channel is removed if all ranks can remove it.

    Returns:
        the report; `PruneReport.compaction` has the channels by reason.

    Raises:
        ValueError: an argument is invalid.
        TypeError: an argument has a wrong type.
        TraceError: the network cannot be traced.
        RewriteError: the smaller network could not be built or has another output; nothing was changed.
        DistributedError: the ranks do not agree, or another rank has failed; nothing was changed on any.
    """
    with consensus_of(process_group, model) as consensus, torch.inference_mode(mode=False):
        module = checked_model(model)
        check_number("tolerance", tolerance, at_least=0, below=1, meaning="the spread of a dormant channel's values")
        if tolerance > 0 and calibration is None:
            raise ValueError(
                f"`tolerance` is {tolerance}, but there is no `calibration`: pass a few hundred typical inputs, or"
                " leave out `tolerance`"
            )
        dry_run = check_flag("dry_run", dry_run)
        optimizers, (modules, copies) = as_optimizers(optimizer), as_followers(followers, module)
        session = with_binding(module, open_session(module, example_inputs, forward, copies))
        if session.example is None:
            raise ValueError(
                "`compact` runs the network on an example, but has none (the network was pickled with a custom"
                " `forward`, or loaded): pass `example_inputs=` and `forward=` again"
            )
        calls = None if calibration is None else calibration_calls(calibration, session.example, "`compact`")
        units = RemovableUnits(module, session.groups, session.bound.tensors, session.example, calls, tolerance)
        exact_calls = [session.example] if calls is None else calls if tolerance == 0 else []
        found: list[CompactionReport] = []

        def choose(frozen: frozenset[str]) -> tuple[BoolArray, Sequence[str]]:
            keep, report = units.choose(frozen)
            if consensus is not None:
                keep = consensus.stacked({"units to keep": keep.astype(np.float64)})["units to keep"].any(0)
            found.append(report)
            return keep, ()

        rewrite = RewriteOptions(
            backend=get_backend(backend, session.bound.device),
            adjustment=None if dry_run else ConstantFolding(units, exact_calls),
            consensus=consensus,
            dry_run=dry_run,
        )
        report = execute(session, choose, Selection(sparsity=0.0), ignore, rewrite, optimizers, modules)
        return replace(report, compaction=found[-1], notes=(*report.notes, str(found[-1])))
