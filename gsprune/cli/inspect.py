"""Show the groups of a run, a checkpoint, a file of gsprune.save or a built-in network as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich import box
from rich.table import Table
from torch import nn

import gsprune
from gsprune.checkpoint.record import read_record
from gsprune.checks import counted
from gsprune.cli.console import console, say
from gsprune.networks import EncoderName, ObservationShape, example_frames
from gsprune.rl.trained import dense_network
from gsprune.rl.training.checkpoints import MODEL_FILE, latest_checkpoint
from gsprune.rl.training.network_size import NetworkSize
from gsprune.rl.training.run_folder import holds_run, read_config
from gsprune.tracing.graph import Group

__all__ = ["Args", "main"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of ``gsprune inspect``."""

    path: Annotated[Path | None, tyro.conf.Positional] = None
    """run folder, checkpoint of a run, or file of gsprune.save; unset: a built-in network"""
    encoder: EncoderName | None = None
    """the built-in network; unset: impoola"""
    width: float | None = None
    """multiplier of the built-in network's filters; unset: 2"""


def main(args: Args) -> None:
    """Print the table."""
    if args.path is None:
        encoder, width = args.encoder or "impoola", 2 if args.width is None else args.width
        options = {"algorithm": "ppo", "env_id": "bigfish", "encoder": encoder, "width": width}
        title, (model, environment) = f"{encoder}, width {width:g}", dense_network(options)
        shape = environment.observation_shape
        dense = NetworkSize.of(model, shape)
    else:
        for name, value in (("encoder", args.encoder), ("width", args.width)):
            if value is not None:
                raise ValueError(
                    f"`{name}` is {value}, but {str(args.path)!r} has its own network; leave out --{name} or the path"
                )
        file = args.path / MODEL_FILE if args.path.is_dir() else args.path
        if file.is_file() and not holds_run(file.parent.parent.parent):
            return _show_file(file)
        title, model, dense, shape = _saved_model(args.path)
    graph = gsprune.trace(model, example_inputs=example_frames(observation_shape=shape))
    console.print(groups_table(graph.groups, graph.shapes, dense.widths, title))
    size = NetworkSize.of(model, shape)
    console.print(
        f"parameters {size.params:,} of {dense.params:,}; MACs per frame {size.macs:,.0f} of {dense.macs:,.0f}"
    )
    for protected in graph.protected:
        layers = ", ".join(protected.names)
        say(f"never pruned: {counted(protected.channels, 'channel')} of {layers}: {protected.reason}")


def groups_table(
    groups: Sequence[Group], shapes: Mapping[str, tuple[int, ...]], first_widths: Mapping[str, int], title: str
) -> Table:
    """A table with one row per group: its present and first width, parameters per channel, and layers.

    Layer names omit the module that all groups share, because full names do not fit into 80 columns.
    """
    shared = _shared_module([group.name for group in groups])
    table = Table(title=f"{title} (names below {shared})" if shared else title, box=box.SIMPLE_HEAD)
    table.add_column("group", no_wrap=True)
    for heading in ("width", "of", "cost"):
        table.add_column(heading, justify="right")
    table.add_column("written by", overflow="fold")
    table.add_column("read by", overflow="fold")
    table.caption = "cost: parameters removed with one channel"
    for group in groups:
        table.add_row(
            _relative_name(shared, group.name),
            str(group.width),
            str(first_widths[group.name]),
            f"{_params_per_unit(shapes, group):,.0f}",
            "\n".join(_relative_name(shared, name) for name in group.layers("out")),
            "\n".join(_relative_name(shared, name) for name in group.layers("in")),
        )
    return table


def _shared_module(names: Sequence[str]) -> str:
    """The innermost module that contains all of these layers; "" for the network itself."""
    parts = [name.split(".")[:-1] for name in names]
    shared = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return ".".join(shared)


def _relative_name(module: str, name: str) -> str:
    """A layer's name relative to a module."""
    return name.removeprefix(f"{module}.") if module else name


def _show_file(path: Path) -> None:
    """Print the contents of a file of `gsprune.save`, which does not need the network's code."""
    record = read_record(path)
    groups, shapes = record.session.recorded_groups, {name: each.shape for name, each in record.tensors.items()}
    if groups:
        console.print(groups_table(groups, shapes, record.session.initial_widths, str(path)))
    else:
        say(f"{path}: the network was never pruned, so the file has no groups")
    now, first = sum(map(math.prod, shapes.values())), sum(math.prod(record.dense_shape(name)) for name in shapes)
    say(f"numbers in parameters and buffers: {now:,} of {first:,}")
    for name, value in record.metadata.items():
        say(f"{name}: {value}")


def _saved_model(path: Path) -> tuple[str, nn.Module, NetworkSize, ObservationShape]:
    """The title, pruned network, dense size and observation shape of a run or checkpoint."""
    if (path / "config.json").is_file():
        checkpoint, complaints = latest_checkpoint(path / "checkpoints", [MODEL_FILE])
        for complaint in complaints:
            say(complaint)
    elif path.name == MODEL_FILE or (path / MODEL_FILE).is_file():
        checkpoint = path.parent if path.is_file() else path
    else:
        raise ValueError(
            f"{str(path)!r} is neither a run folder nor a checkpoint; give a folder like runs/NAME, or a file of"
            " gsprune.save"
        )
    config: dict[str, Any] = read_config(checkpoint.parent.parent)
    model, environment = dense_network(config)
    shape = environment.observation_shape
    dense = NetworkSize.of(model, shape)
    gsprune.load(checkpoint / MODEL_FILE, into=model)
    return f"{checkpoint}: {config['encoder']}, width {config['width']:g}", model, dense, shape


def _params_per_unit(shapes: Mapping[str, tuple[int, ...]], group: Group) -> float:
    """The average number of parameters that are removed with one unit."""
    total = 0.0
    for member in group.members:
        shape = shapes.get(member.tensor, ())  # a file lacks buffers that are not part of the ``state_dict``
        if not shape:
            continue
        per_position = 1.0
        for axis, length in enumerate(shape):
            per_position *= 1 if axis == member.axis else length
        total += per_position * float((member.units >= 0).sum())
    return total / group.num_units
