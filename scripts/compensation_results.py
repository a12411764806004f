"""The tables and pictures of docs/results/compensation.md, from the csv files of `compensation_table.py`.

    python scripts/compensation_results.py docs/results

Writes ``images/compensation-digits.png`` and ``images/compensation-agents.png``, and puts the tables into
``compensation.md`` between its comments ``<!-- table NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import csv
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from gsprune.report.style import new_figure, plot_styles

TORCH_PRUNING = "l1, Torch-Pruning"
MODES = ("none", "bias", "linear")
Row = dict[str, str]


class Results:
    """The rows of a csv file; every number is a median over seeds.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        with path.open(newline="") as file:
            self.rows: list[Row] = list(csv.DictReader(file))
        self.networks = list(dict.fromkeys(row["network"] for row in self.rows))
        self.sparsities = sorted({float(row["sparsity"]) for row in self.rows})
        self.criteria = [
            name
            for name in ("l1", "taylor", "reconstruction", "random")
            if any(row["criterion"] == name for row in self.rows)
        ]

    def value(self, measure: str, network: str, sparsity: float, criterion: str, mode: str) -> float | None:
        """The median of a column; None without a row."""
        key = (network, sparsity, criterion, mode)
        values = [
            float(row[measure])
            for row in self.rows
            if (row["network"], float(row["sparsity"]), row["criterion"], row["compensate"]) == key
        ]
        return median(values) if values else None

    def cell(
        self, measure: str, network: str, sparsity: float, columns: Sequence[tuple[str, str]], form: Callable[..., str]
    ) -> str:
        """Several (criterion, mode) side by side."""
        values = [self.value(measure, network, sparsity, *column) for column in columns]
        return " / ".join("-" if value is None else form(value) for value in values)


def digits_table(results: Results) -> str:
    """Accuracy that one step loses, in points."""
    others = " / ".join(results.criteria[1:])
    lines = [
        f"| network | removed | Torch-Pruning | none / bias / linear | linear by {others} |",
        "|---|---:|---:|---:|---:|",
    ]
    for network in results.networks:
        for sparsity in results.sparsities:
            cells = [
                results.cell("error", network, sparsity, columns, _points)
                for columns in (
                    [(TORCH_PRUNING, "none")],
                    [("l1", mode) for mode in MODES],
                    [(criterion, "linear") for criterion in results.criteria[1:]],
                )
            ]
            lines.append(f"| {network} | {sparsity:.0%} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def agents_table(results: Results, algorithm: str) -> str:
    """KL divergence (PPO) or the share of changed greedy actions (DQN), and errors of values."""
    measure = "KL" if algorithm == "ppo" else "changed actions"
    lines = [
        f"| agent | removed | criterion | {measure}: none / bias / linear | value error: none / bias / linear |",
        "|---|---:|---|---:|---:|",
    ]
    for network in results.networks:
        if not network.startswith(algorithm):
            continue
        for sparsity in results.sparsities:
            for criterion in results.criteria:
                columns = [(criterion, mode) for mode in MODES]
                change, error = (
                    results.cell(name, network, sparsity, columns, form)
                    for name, form in (("change", _small), ("error", _two_digits))
                )
                if change.strip("-/ "):
                    lines.append(f"| {agent_name(network)} | {sparsity:.0%} | {criterion} | {change} | {error} |")
    return "\n".join(lines) + "\n"


def bar_table(results: Results) -> str:
    """How many times less KL there is with linear compensation at 50 %, by criterion."""
    lines = [f"| agent | {' | '.join(results.criteria)} |", "|---|" + "---:|" * len(results.criteria)]
    for network in results.networks:
        if network.startswith("ppo"):
            ratios = []
            for criterion in results.criteria:
                before, after = (results.value("change", network, 0.5, criterion, mode) for mode in ("none", "linear"))
                ratios.append("-" if before is None or after is None else f"{before / after:,.0f}")
            lines.append(f"| {agent_name(network)} | {' | '.join(ratios)} |")
    return "\n".join(lines) + "\n"


def agent_name(key: str) -> str:
    """Words for the key of an agent in the csv."""
    algorithm, encoder, width, game, steps = key.split()
    game = re.split("[:/]", game)[-1].removesuffix("-v5")  # minatar_games:space_invaders, ALE/Pong-v5
    # The user's own encoders (module:NAME) have no width.
    network = encoder.partition(":")[2] or f"{encoder.capitalize()} {width}"
    return f"{algorithm.upper()} {network}, {game}, {int(steps) // 1000:,}k steps"


def _points(value: float) -> str:
    return f"{100 * value:.1f}"


def _small(value: float) -> str:
    return f"{value:.0e}" if value < 0.001 else f"{value:.2g}"


def _two_digits(value: float) -> str:
    return f"{value:.2f}"


def tables(digits: Results, agents: Results) -> dict[str, str]:
    """All tables of the page by name."""
    return {
        "digits": digits_table(digits),
        "bar": bar_table(agents),
        "ppo": agents_table(agents, "ppo"),
        "dqn": agents_table(agents, "dqn"),
    }


def draw(path: Path, results: Results, networks: Sequence[str], measure: str, label: str, *, is_log: bool) -> None:
    """One panel per network: a measure over the removed share, by l1."""
    columns = {"Torch-Pruning": (TORCH_PRUNING, "none"), **{mode: ("l1", mode) for mode in MODES}}
    if not any(row["criterion"] == TORCH_PRUNING for row in results.rows):
        del columns["Torch-Pruning"]
    styles = plot_styles(columns)
    per_row = min(len(networks), 4)
    figure, axes = new_figure(per_row, math.ceil(len(networks) / per_row), width=3.4)
    for axis, network in zip(axes.flat, networks, strict=False):
        for name, column in columns.items():
            values = [results.value(measure, network, sparsity, *column) for sparsity in results.sparsities]
            style = styles[name]
            axis.plot(results.sparsities, values, style.line, color=style.colour, marker=style.marker, label=name)
        axis.set_title(agent_name(network) if network.startswith("ppo") else network, fontsize=10)
        axis.set_xticks(results.sparsities, [f"{sparsity:.0%}" for sparsity in results.sparsities])
        axis.set_xlabel("channels removed")
        if is_log:
            axis.set_yscale("log")
    for axis in axes.flat[len(networks) :]:
        axis.set_visible(False)
    for row in axes:
        row[0].set_ylabel(label)
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.savefig(path)


def main(folder: Path) -> None:
    """Write tables and pictures."""
    digits, agents = (Results(folder / f"compensation-{name}.csv") for name in ("digits", "agents"))
    page = folder / "compensation.md"
    text = page.read_text()
    for name, table in tables(digits, agents).items():
        text = re.sub(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", rf"\1\n{table}\n\2", text, flags=re.DOTALL)
    page.write_text(text)
    images, ppo = folder / "images", [name for name in agents.networks if name.startswith("ppo")]
    draw(images / "compensation-digits.png", digits, digits.networks, "error", "loss of accuracy", is_log=False)
    draw(images / "compensation-agents.png", agents, ppo, "change", "KL divergence", is_log=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
