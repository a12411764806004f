"""Time the networks of runs, dense and pruned, in inference engines: median and p99 as a table and a plot.

All networks are timed in turns in every setting, so that other load on the machine slows them alike. Without a run, the
command times a built-in network at several sparsities.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table as RichTable
from torch import nn

import gsprune
from gsprune.checks import check_number
from gsprune.cli.console import console, open_agent, say
from gsprune.engines import WIDTH_MULTIPLES, WidthPreset
from gsprune.files import write_atomically
from gsprune.networks import FRAME_SHAPE, EncoderName, ObservationShape, example_frames
from gsprune.report.engine_latency import EngineLatency, latency_table, time_engines
from gsprune.report.plot_engines import engine_latencies
from gsprune.report.table import Table
from gsprune.rl.algorithms.registry import algorithm_of
from gsprune.rl.trained import dense_network

__all__ = ["Args", "main"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of ``gsprune latency``."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """run folders: for each the network of the newest checkpoint, and the dense network at the start"""
    encoder: EncoderName | None = None
    """without runs: the built-in network; unset: impoola"""
    width: float | None = None
    """without runs: multiplier of the built-in network's filters; unset: 2"""
    sparsity: tuple[float, ...] = ()
    """without runs: fractions of the channels to remove; unset: 0.8"""
    round_to: tuple[int | WidthPreset, ...] = ()
    """without runs: multiples or presets of engines to which widths are rounded up; each is timed; unset: 1"""
    batches: tuple[int, ...] = (1, 256)
    """frames per call"""
    engines: tuple[str, ...] = ("eager", "compiled", "onnxruntime")
    """eager and compiled (PyTorch), onnxruntime, onnxruntime-int8 (the statically quantised network)"""
    threads: tuple[int, ...] = (1, 2)
    """threads of the engine"""
    seconds: float = 5.0
    """the most seconds of timing per network and setting"""
    out: Path = Path("latency")
    """folder for latency.md, latency.json and latency.png"""


def main(args: Args) -> None:
    """Time, print the table and write it."""
    check_number("seconds", args.seconds, above=0)
    for name in ("encoder", "width", "sparsity", "round_to"):
        if args.runs and getattr(args, name) not in (None, ()):
            raise ValueError(f"`{name}` is for a built-in network, but runs have their own; leave out either")
    with _writing_to(args.out):  # raises now rather than after minutes of timing
        args.out.mkdir(parents=True, exist_ok=True)
    networks, references, shape = _of_runs(args.runs) if args.runs else _built_in(args)
    with console.status("") as status:
        rows = time_engines(
            networks,
            references,
            args.engines,
            args.threads,
            args.batches,
            args.seconds,
            on_setting=lambda text: status.update(f"timing: {text}"),
            observation_shape=shape,
        )
    table = latency_table(rows)
    for one in _per_network(table):
        console.print(one)
    _write(args.out, table, rows)
    say(f"latency.md, latency.json and latency.png are in {args.out}")


_Networks = tuple[dict[str, nn.Module], dict[str, str], ObservationShape]
"""{label: network}, {label: label of its dense network} and the shape of observations."""


def _of_runs(runs: tuple[Path, ...]) -> _Networks:
    """The networks of runs.

    Raises:
        ValueError: their observations have different shapes.
    """
    networks: dict[str, nn.Module] = {}
    shapes: dict[str, ObservationShape] = {}
    references: dict[str, str] = {}
    for run in runs:
        agent = open_agent(run)
        config = agent.config
        shapes[str(run)] = agent.environment.observation_shape
        label = run.resolve().name
        if label in networks:
            label = str(run)
        dense = f"{config['algorithm']} {config.get('network') or config['encoder']} x{config['width']:g}, dense"
        initial = agent.algorithm.acting_part(agent.build_dense())
        if _sizes(networks.setdefault(dense, initial)) != _sizes(initial):  # other features or actions
            dense = f"{label}, dense"
            networks[dense] = initial
        references[dense] = dense
        networks[label] = agent.acting_part
        references[label] = dense
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{run}: {shape}" for run, shape in shapes.items())
        raise ValueError(f"`runs` must have observations of one shape to be timed together, got {listed}")
    return networks, references, next(iter(shapes.values()))


def _sizes(network: nn.Module) -> list[tuple[int, ...]]:
    return [parameter.shape for parameter in network.parameters()]


def _built_in(args: Args) -> _Networks:
    encoder, width = args.encoder or "impoola", 2 if args.width is None else args.width
    dense = f"{encoder} x{width:g}, dense"
    acting_part = algorithm_of("ppo").acting_part
    networks: dict[str, nn.Module] = {dense: acting_part(_agent(encoder, width))}
    for sparsity, round_to in itertools.product(args.sparsity or (0.8,), args.round_to or (1,)):
        multiple = WIDTH_MULTIPLES[round_to] if isinstance(round_to, str) else round_to
        agent = _agent(encoder, width)
        report = gsprune.prune_step(agent, sparsity, example_inputs=example_frames(), round_to=multiple)
        rounded = f", widths x{multiple} ({report.sparsity:.3f})" if multiple > 1 else ""
        networks[f"{encoder} x{width:g} at {sparsity:g}{rounded}"] = acting_part(agent)
    return networks, dict.fromkeys(networks, dense), FRAME_SHAPE


def _agent(encoder: EncoderName, width: float) -> nn.Module:
    """The network of PPO for Procgen."""
    return dense_network({"algorithm": "ppo", "env_id": "bigfish", "encoder": encoder, "width": width})[0]


def _per_network(table: Table) -> list[RichTable]:
    """One table per network, without the number of calls, so that it fits into 80 columns."""
    tables: dict[str, RichTable] = {}
    for network, *cells in table.rows:
        if network not in tables:
            tables[network] = RichTable(title=network)
            for heading in table.headings[1:-1]:
                tables[network].add_column(heading, justify="right")
        tables[network].add_row(*cells[:-1])
    return list(tables.values())


def _write(folder: Path, table: Table, rows: list[EngineLatency]) -> None:
    with _writing_to(folder):
        write_atomically(folder / "latency.md", (table.markdown() + "\n![](latency.png)\n").encode())
        write_atomically(folder / "latency.json", json.dumps(_json(rows), indent=1).encode())
        engine_latencies(rows).savefig(folder / "latency.png")


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    """A context that turns an OSError into an error that names the folder."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{str(folder)!r} cannot be written ({error.strerror}); choose another --out") from error


def _json(rows: list[EngineLatency]) -> list[dict[str, Any]]:
    return [
        {
            "network": row.network,
            "engine": row.engine,
            "threads": row.latency.threads,
            "batch": row.latency.batch,
            "median_ms": 1e3 * row.latency.median,
            "p99_ms": 1e3 * row.latency.p99,
            "undisturbed_ms": 1e3 * row.latency.undisturbed,
            "of_dense": row.of_dense,
            "calls": len(row.latency.seconds),
            "undisturbed_calls": row.latency.undisturbed_calls,
        }
        for row in rows
    ]
