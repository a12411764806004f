"""Measure compensation, reconstruction scores and compaction on public networks, one after another.

    python scripts/compensation_networks.py [--only GLOB ...] [--seconds 90] [--rows runs/compensation-networks.jsonl]
    python scripts/compensation_networks.py --table [--rows runs/compensation-networks.jsonl]

The networks are those of network_table.py, with random weights, and batch norms that fit the data. They are built for
small pictures where they accept them. Each one runs in a process of its own, which is ended after so many seconds; its
row keeps what was measured until then. A later call leaves out the networks that the file has. --table prints the rows
for the page in bench/results.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import re
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from fnmatch import fnmatch
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from network_list import Network, networks
from network_table import commit, known_rows, randomize
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from affine_norms import affine_norms
from compensated import duplicate_units, remove_units
from masked_networks import masked_copy

import gsprune
from gsprune.tracing import trace
from gsprune.tracing.outputs import tensors_in
from gsprune.tracing.relative_change import relative_change

SIDES = (64, 96, 128, 224)
SPARSITY = 0.3
# Reconstruction scores of wider networks take too long.
MOST_PARAMETERS = 6e6
NUM_CALIBRATION, NUM_TEST = 24, 16


def pictures(count: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """Random mixtures of eight smooth random pictures, and a little noise."""
    made = torch.Generator().manual_seed(0)
    coarse = torch.randn(8, shape[0], *[min(size, 8) for size in shape[1:]], generator=made)
    mode = "trilinear" if len(shape) == 4 else "bilinear"
    bases = F.interpolate(coarse, shape[1:], mode=mode)
    drawn = torch.Generator().manual_seed(seed)
    mixed = torch.einsum("nb,b...->n...", torch.randn(count, 8, generator=drawn), bases)
    return 0.5 + 0.15 * mixed + 0.01 * torch.randn(count, *shape, generator=drawn)


def fit_batch_norms(model: nn.Module, x: Tensor) -> None:
    """Set the running statistics to those of a batch, so that activations keep their size with the depth."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.train()
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model(x)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.eval()


def built(network: Network) -> tuple[nn.Module, Tensor]:
    """A network in eval mode and an example, of the smallest pictures that it accepts."""
    torch.manual_seed(0)
    native = network.example()
    makers = [network.build]
    if network.name.startswith("timm "):
        import timm

        name = network.name.split()[1]
        makers = [lambda s=s: timm.create_model(name, num_classes=10, img_size=s) for s in SIDES[:3]] + makers
    for make in makers:
        try:
            model = make().eval()
        except (TypeError, ValueError, AssertionError, RuntimeError):
            continue
        for side in SIDES:
            shape = (*native.shape[1:-2], side, side)
            if side > native.shape[-1]:
                break
            try:
                with torch.no_grad():
                    model(pictures(2, shape, 1))
            except Exception:
                continue
            return model, pictures(2, shape, 1)
    return network.build().eval(), pictures(2, tuple(native.shape[1:]), 1)


def run(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Floating-point outputs; networks that draw a mask draw the same one every time."""
    torch.manual_seed(0)
    with torch.no_grad():
        return [tensor for tensor in tensors_in(model(x)) if tensor.is_floating_point()]


def change(model: nn.Module, x: Tensor, expected: list[Tensor]) -> float:
    """Root mean square of the change of the outputs, relative to their spread over the pictures."""
    got = run(model, x)
    values = []
    for a, b in zip(got, expected, strict=True):
        spread = (b - b.mean(0, keepdim=True)).double().norm()
        values.append(float((a - b).double().norm() / (spread + 1e-300)))
    return max(values) if values else float("nan")


def examine(network: Network) -> Iterator[dict[str, Any]]:
    """Yield what is found about a network, part by part."""
    model, x = built(network)
    shape = tuple(x.shape[1:])
    calibration, test = pictures(NUM_CALIBRATION, shape, 2), pictures(NUM_TEST, shape, 3)
    randomize(model)
    fit_batch_norms(model, calibration)
    expected = run(model, test)
    started = time.process_time()
    run(model, calibration)
    forward = time.process_time() - started
    yield {"parameters": sum(p.numel() for p in model.parameters()), "side": shape[-1], "forward": forward}
    if not all(tensor.isfinite().all() for tensor in expected):
        yield {"error": "outputs are not finite"}
        return

    def step(mode: str, **options: Any) -> Any:
        small = copy.deepcopy(model)
        started = time.process_time()
        options = {"compensate": mode, "calibration": calibration, "example_inputs": x, **options}
        report = gsprune.prune_step(small, SPARSITY, **options)
        seconds = time.process_time() - started
        return report, change(small, test, expected), seconds

    first = gsprune.prune_step(model, SPARSITY, example_inputs=x, dry_run=True)
    report, none, base = step("none")
    yield {"none": none, "step": base / forward}
    report, linear, seconds = step("linear")
    assert report.compensation is not None
    explained = [consumer.explained for consumer in report.compensation.consumers]
    yield {
        "linear": linear,
        "linear forwards": (seconds - base) / forward,
        "consumers": len(explained),
        "explained": sorted(explained)[len(explained) // 2] if explained else None,
        "skipped": dict(report.compensation.skipped),
    }
    report, bias, seconds = step("bias")
    yield {"bias": bias, "bias forwards": (seconds - base) / forward}
    yield compacted(model, x, test, first.removed)
    yield duplicates(model, x, calibration)
    if sum(p.numel() for p in model.parameters()) > MOST_PARAMETERS:
        return
    ignored: list[str] = []
    try:
        report, reconstruction, seconds = step("linear", importance="reconstruction")
    except gsprune.GspruneError as error:  # queries and keys, which only each other read
        ignored = re.findall("'([^']+)'", str(error).partition("ignore=(")[2].partition(")")[0])
        yield {"ignored": ignored, "reason": str(error)[:600]}
        report, linear, _ = step("linear", ignore=ignored)
        yield {"linear with ignore": linear}
        report, reconstruction, seconds = step("linear", importance="reconstruction", ignore=ignored)
    notes = [note for note in report.notes if "does not count" in note]
    yield {"reconstruction": reconstruction, "reconstruction forwards": (seconds - base) / forward, "notes": notes}


def compacted(model: nn.Module, x: Tensor, test: Tensor, removed: Any) -> dict[str, Any]:
    """Compact a copy in which some channels are zero."""
    masked = masked_copy(model, removed)
    expected = run(masked, test)
    started = time.process_time()
    try:
        report = gsprune.compact(masked, example_inputs=x)
    except gsprune.GspruneError as error:
        return {"compact": f"refused: {error}"[:300]}
    gap = relative_change(run(masked, test), expected)
    assert report.compaction is not None
    masked_count = sum(len(indices) for axes in removed.values() for indices in axes.values())
    gone = sum(len(indices) for axes in report.removed.values() for indices in axes.values())
    return {
        "compact": gap,
        "compact share": gone / max(masked_count, 1),
        "compact seconds": time.process_time() - started,
        "compact unclear": dict(report.compaction.unclear),
    }


def duplicates(model: nn.Module, x: Tensor, calibration: Tensor) -> dict[str, Any]:
    """Remove duplicates from every group, in float64: the change of the outputs on the calibration data."""
    dense = copy.deepcopy(model).double()
    x, calibration = x.double(), calibration.double()
    graph, _ = trace(dense, x)
    pairs = {group.name: [(0, unit) for unit in range(1, group.num_units, 3)] for group in graph.groups}
    duplicate_units(dense, graph, pairs)
    units = {name: [unit for _, unit in each] for name, each in pairs.items()}
    with affine_norms() if graph.inexact else nullcontext():
        expected = run(dense, calibration)
        report = remove_units(dense, units, (x,), [(calibration,)])
        gap = relative_change(run(dense, calibration), expected) if report is not None else None
    return {"duplicates": gap, "duplicates skipped": None if report is None else dict(report.skipped)}


def _child(network: Network, results: Connection) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        for part in examine(network):
            results.send(part)
    except Exception as error:
        where = "".join(traceback.format_tb(error.__traceback__)[-3:])
        results.send({"error": f"{type(error).__name__}: {error}"[:600], "where": where})
    results.send(None)


def examined(network: Network, seconds: float) -> dict[str, Any]:
    """The row of a network, found in a process of its own."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(network, there))
    process.start()
    there.close()
    row: dict[str, Any] = {"name": network.name}
    end = time.monotonic() + seconds
    try:
        while True:
            if not here.poll(max(0.0, end - time.monotonic())):
                row["error"] = f"not done after {seconds:g} s"
                break
            part = here.recv()
            if part is None:
                break
            row |= part
    except EOFError:
        row["error"] = "its process ended"
    process.kill()
    process.join()
    return row


HEADER = """| network | none | bias | linear | scored | bias | linear | scored | consumers | duplicates | compact |
|---|---|---|---|---|---|---|---|---|---|---|"""


def table_line(row: dict[str, Any]) -> str:
    """One network: changes of the outputs, times in forwards, consumers, duplicates and compaction."""
    changes = [_number(row, key, ".2g") for key in ("none", "bias", "linear", "reconstruction")]
    times = [_number(row, f"{key} forwards", ".0f") for key in ("bias", "linear", "reconstruction")]
    consumers, skipped = row.get("consumers"), len(row.get("skipped", ()))
    done = "" if consumers is None else f"{consumers} of {consumers + skipped}"
    checks = [_number(row, key, ".0e") for key in ("duplicates", "compact")]
    return f"| {' | '.join([row['name'], *changes, *times, done, *checks])} |"


def _number(row: dict[str, Any], key: str, form: str) -> str:
    value = row.get(key)
    return format(value, form) if isinstance(value, float) else "refused" if isinstance(value, str) else ""


def main() -> None:
    """Measure, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=["*"], help="globs of names such as 'timm *', in this order")
    parser.add_argument("--seconds", type=float, default=90, help="how long one network may take")
    parser.add_argument("--rows", type=Path, default=Path("runs/compensation-networks.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the rows as a table")
    options = parser.parse_args()
    if options.table:
        print(HEADER, *map(table_line, known_rows(options.rows).values()), sep="\n")
        return
    torch.set_num_threads(1)
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    every, present, done = list(networks()), commit(), known_rows(options.rows)
    for glob in options.only:
        for network in every:
            if fnmatch(network.name, glob) and network.name not in done:
                row = examined(network, options.seconds) | {"commit": present}
                done[network.name] = row
                with options.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
