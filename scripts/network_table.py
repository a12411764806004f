"""Write docs/networks.md: which public networks are pruned, how exactly, and what stays protected.

    python scripts/network_table.py [--only GLOB ...] [--seconds 300] [--output docs/networks.md]

Needs torchvision, timm and transformers beside gsprune; what is missing is left out and said so. Every network has
random weights and is built, traced and pruned in a process of its own, which is ended after so many seconds.
"""

from __future__ import annotations

import argparse
import copy
import math
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from network_list import Network, networks
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from affine_norms import affine_norms
from masked_networks import masked_copy

import gsprune
from gsprune.rewrite.float64 import call_in_float64
from gsprune.tracing import trace
from gsprune.tracing.example import Example
from gsprune.tracing.outputs import tensors_in


@dataclass
class Row:
    """One network's line."""

    name: str
    result: str
    parameters: str = ""
    difference: str = ""
    kept: str = ""
    ratio: str = ""


def randomize(model: nn.Module) -> None:
    """Nothing is hidden by zero scales: norms and biases get random values."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim <= 1:
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * 0.5 + 0.5)
            elif parameter.numel() and float(parameter.abs().max()) == 0.0:
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * 0.02)


def examine(network: Network) -> Row:
    """Prune half of the channels of one network."""
    torch.manual_seed(0)
    model, x = network.build().eval(), network.example()
    randomize(model)
    with torch.no_grad():
        model(x)
        started = time.process_time()
        model(x)
        forward = time.process_time() - started
    dense = copy.deepcopy(model)
    started = time.process_time()
    try:
        report = gsprune.prune_step(model, 0.5, example_inputs=x)
    except gsprune.GspruneError as error:
        return Row(network.name, f"refused: {str(error)[:200]}")
    ratio = (time.process_time() - started) / forward
    graph, example = trace(dense, x)
    masked = masked_copy(dense, report.removed)
    difference = _difference(model, masked, example, bool(graph.inexact))
    held = [item for item in report.protected if item.reason != "output of the network"]
    free = sum(int((group.root.units >= 0).sum()) for group in graph.groups)
    count = sum(item.channels for item in held)
    reasons = "; ".join(f"{item.channels}: {item.reason.splitlines()[0][:90]}" for item in held)
    return Row(
        network.name,
        "exact" if not graph.inexact else "norms over channels",
        f"{report.params_before / 1e6:.2f} M -> {report.params_after / 1e6:.2f} M",
        difference,
        f"{count / (count + free):.0%} ({reasons})" if held else "",
        f"{ratio:.1f}",
    )


def _difference(model: nn.Module, masked: nn.Module, example: Example, inexact: bool) -> str:
    """Largest difference of two networks' outputs, relative to their scale, in float64 where the network lets one."""
    with affine_norms() if inexact else nullcontext(), torch.no_grad():
        try:
            return f"{_gap(*(_outputs(call_in_float64, each, example) for each in (model, masked))):.0e}"
        except Exception as error:
            gap = _gap(*(_outputs(lambda net, inputs: inputs.call(net), each, example) for each in (model, masked)))
            return f"{gap:.0e} (float32: {type(error).__name__})"


def _outputs(call: Callable[[nn.Module, Example], Any], model: nn.Module, example: Example) -> list[Tensor]:
    """Floating outputs of one call; networks that draw a mask draw the same one every time."""
    torch.manual_seed(0)
    return [tensor for tensor in tensors_in(call(model, example)) if tensor.is_floating_point()]


def _gap(got: list[Tensor], expected: list[Tensor]) -> float:
    pairs = zip(got, expected, strict=True)
    found = torch.stack([((a - b).abs().max() / (b.abs().max() + 1e-300)).double() for a, b in pairs])
    return float(found.max()) if found.isfinite().all() else math.nan


def _child(network: Network, results: Connection) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        row = examine(network)
    except Exception as error:
        row = Row(network.name, f"failed: {type(error).__name__}: {str(error)[:200]}")
    results.send(asdict(row))


def examined(network: Network, seconds: float) -> Row:
    """The row of a network, found in a process of its own; a row that says so where that ends or takes too long."""
    context = multiprocessing.get_context("fork")  # so that the packages are imported once
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(network, there))
    process.start()
    there.close()
    try:
        found = Row(**here.recv()) if here.poll(seconds) else Row(network.name, f"failed: not done after {seconds:g} s")
    except EOFError:
        found = Row(network.name, "failed: its process ended")
    process.kill()
    process.join()
    return found


HEADER = """# Networks

Written by `python scripts/network_table.py`: random weights, half of the channels of every group asked to go, one
thread, one process per network.

| network | result | parameters | difference | kept by rule | first call |
|---|---|---|---|---|---|
"""


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=["*"], help="globs of names such as 'timm *'")
    parser.add_argument("--seconds", type=float, default=300, help="how long one network may take")
    parser.add_argument("--output", type=Path, default=Path("docs/networks.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with options.output.open("w") as file:
        file.write(HEADER)
        for network in networks():
            if not any(fnmatch(network.name, glob) for glob in options.only):
                continue
            row = examined(network, options.seconds)
            cells = (row.name, row.result, row.parameters, row.difference, row.kept, row.ratio)
            file.write("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |\n")
            file.flush()


if __name__ == "__main__":
    main()
