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
from gsprune.pruning.execution import Execution, execute
from gsprune.pruning.report import PruneReport
from gsprune.pruning.session import open_session, with_binding
from gsprune.rewrite.followers import Follower, as_followers
from gsprune.rewrite.optimizers.wrappers import as_optimizers
from gsprune.rewrite.tensors import unwrapped
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
    """Remove the channels whose removal does not change the network's output.

    These are channels that have the same value for every input (all weights that lead to them are zero, as after
    unstructured pruning), channels that only weights of zero read, and with `calibration` also channels that are
    constant on it (dormant ones). Constants go into the biases of the layers that read them. Nothing is retrained.

        >>> import torch, gsprune
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> with torch.no_grad():
        ...     _ = model[0].weight[2:5].zero_()  # three units that only have their bias
        ...     _ = model[2].weight[:, 7].zero_()  # one unit that nobody reads
        >>> report = gsprune.compact(model, example_inputs=torch.zeros(2, 4))
        >>> model[0].out_features
        4
        >>> print(report.compaction)
        compacted: 3 constant, 1 unread, 0 dormant

    A channel stays if it is the last one of its group, if a zero-padded convolution reads it as a constant other than
    zero, if no bias can take its constant, or if it meets the others without a weight (in a layer norm, a softmax over
    channels, queries and keys of an attention).

    Args:
        model: the network; changed in place, as by `prune_step`.
        optimizer: a ``torch.optim.Optimizer`` or a sequence of them, whose states are sliced along.
        followers: modules of the same architecture, which lose the same channels and get the same constants.
        example_inputs: tensor, tuple or dict; needed at most once per model.
        forward: callable(model, *example_inputs) -> outputs; None takes that of an earlier step, or calls the model.
        calibration: inputs on which a channel may be constant: a tensor, a tuple or dict of inputs as
            `example_inputs`, or an iterable of them; a few hundred. None looks at the weights alone.
        tolerance: how far the values of a dormant channel may spread, as a fraction of the largest value that the layer
            behind it reads, in [0, 1). With 0 the outputs on the calibration data do not change.
        ignore: module names (globs), modules or module types whose outputs keep their width.
        backend: "auto", "cpp", "triton" or "torch".
        dry_run: only report what would be removed.
        process_group: the ``torch.distributed`` group whose ranks train this network together; all of them must call.
            Channels go that all ranks can remove.

    Returns:
        what was done; `PruneReport.compaction` has the channels by reason.

    Raises:
        ValueError: a bad argument.
        TypeError: an argument of a wrong type.
        TraceError: the network cannot be traced.
        RewriteError: the smaller network could not be built or has another output; nothing was changed.
        DistributedError: the ranks do not agree, or another rank has failed; nothing was changed on any.
    """
    with consensus_of(process_group, model) as consensus, torch.inference_mode(mode=False):
        module = unwrapped(checked_model(model))
        check_number("tolerance", tolerance, at_least=0, below=1, meaning="the spread of a dormant channel's values")
        if tolerance > 0 and calibration is None:
            raise ValueError(
                f"`tolerance` is {tolerance}, but there is no `calibration` for it: pass"
                " a few hundred inputs of the kind that the network works on, or leave out `tolerance`"
            )
        dry_run = check_flag("dry_run", dry_run)
        optimizers, following = as_optimizers(optimizer), as_followers(followers, module)
        session = with_binding(module, open_session(module, example_inputs, forward, following.copies))
        if session.example is None:
            raise ValueError(
                "`compact` runs the network on an example, which is not known (the network was pickled with a custom"
                " `forward`, or loaded): pass `example_inputs=` and `forward=` once more"
            )
        calls = None if calibration is None else calibration_calls(calibration, session.example, "`compact`")
        units = RemovableUnits(module, session.groups, session.bound.tensors, session.example, calls, tolerance)
        found: list[CompactionReport] = []

        def choose(frozen: frozenset[str]) -> BoolArray:
            keep, report = units.choose(frozen)
            if consensus is not None:
                keep = consensus.mean({"units to keep": keep.astype(np.float64)})["units to keep"] > 0
            found.append(report)
            return keep

        how = Execution(
            selection=Selection(sparsity=0.0),
            ignore=ignore,
            backend=get_backend(backend, session.bound.device),
            dry_run=dry_run,
            adjustments=[ConstantFolding(units, is_exact=calibration is None)],
            consensus=consensus,
        )
        report = execute(session, choose, how, optimizers, following.modules)
        return replace(report, compaction=found[-1], notes=(*report.notes, str(found[-1])))
