"""Measure which public networks are pruned, how exactly, and what stays protected (bench/results/DATE-networks.md).

    python scripts/network_table.py [--only GLOB ...] [--seconds 300] [--rows runs/networks.jsonl]
    python scripts/network_table.py --write bench/results/DATE-networks.md

Needs torchvision, timm and transformers beside gsprune; what is missing is left out and said so. Every network has
random weights and is built, traced and pruned in a process of its own, which is ended after so many seconds. Rows are
kept in a file as they come, with the commit; a later call goes on where an earlier one ended. --write puts them in
place of the table of the page, whose text stays.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import multiprocessing
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
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
    difference = _difference(model, masked, example, graph.inexact)
    held = [item for item in report.protected if item.reason != "output of the network"]
    free = sum(int((group.root.units >= 0).sum()) for group in graph.groups)
    count = sum(item.channels for item in held)
    reasons = "; ".join(f"{item.channels}: {item.reason.splitlines()[0][:90]}" for item in held)
    return Row(
        network.name,
        "nothing removed" if not report.changed else "norms over channels" if graph.inexact else "exact",
        f"{report.params_before / 1e6:.2f} M -> {report.params_after / 1e6:.2f} M",
        difference,
        f"{count / (count + free):.0%} ({reasons})" if held else "",
        f"{ratio:.1f}",
    )


def _difference(model: nn.Module, masked: nn.Module, example: Example, inexact: Sequence[str]) -> str:
    """Largest difference of two networks' outputs, relative to their scale, in float64 where the network lets one."""
    softmax = any("softmax" in op for op in inexact)
    with affine_norms(softmax=softmax) if inexact else nullcontext(), torch.no_grad():
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


HEADER = """| network | result | parameters | difference | kept by rule | first call |
|---|---|---|---|---|---|
"""


def commit() -> str:
    """The present commit, with a plus sign where files have changed since."""
    here = Path(__file__).parent
    say = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(say, capture_output=True, text=True, check=True, cwd=here).stdout.strip()


def known_rows(path: Path) -> dict[str, dict[str, str]]:
    """Name -> row, the last of each network, of a file of rows."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def measure(only: Sequence[str], seconds: float, path: Path) -> None:
    """Examine the networks that the file has no row of."""
    path.parent.mkdir(parents=True, exist_ok=True)
    present, done = commit(), known_rows(path)
    for network in networks():
        if network.name in done or not any(fnmatch(network.name, glob) for glob in only):
            continue
        row = asdict(examined(network, seconds)) | {"commit": present}
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def write(path: Path, output: Path) -> None:
    """Put the rows in place of the page's table, in the order of the list; those of another commit say so."""
    rows = known_rows(path)
    text = output.read_text()
    usual = Counter(row["commit"] for row in rows.values()).most_common(1)[0][0]
    lines = []
    for name in (network.name for network in networks()):
        if name in rows:
            cells = [rows[name][key] for key in ("name", "result", "parameters", "difference", "kept", "ratio")]
            cells[0] += "" if rows[name]["commit"] == usual else f" ({rows[name]['commit']})"
            lines.append("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |\n")
    output.write_text(text[: text.index("| network |")] + HEADER + "".join(lines))
    results = Counter(row["result"].partition(":")[0] for row in rows.values())
    print(f"{len(rows)} networks, {dict(results)}; commits {sorted({row['commit'] for row in rows.values()})}")


def main() -> None:
    """Measure, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=["*"], help="globs of names such as 'timm *'")
    parser.add_argument("--seconds", type=float, default=300, help="how long one network may take")
    parser.add_argument("--rows", type=Path, default=Path("runs/networks.jsonl"))
    parser.add_argument("--write", type=Path, metavar="PAGE", help="page whose table is replaced by the rows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.write:
        write(options.rows, options.write)
    else:
        measure(options.only, options.seconds, options.rows)


if __name__ == "__main__":
    main()
