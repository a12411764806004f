"""A table of text, and the formats of its cells."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["UNKNOWN", "Table", "percent"]

UNKNOWN = "-"
"""The cell of a missing value."""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: the heading above the table.
        headings: headings of the columns. The first column is text, the others are numbers.
        rows: one tuple per row, as long as the headings.
        note: an explanation of the table; may be empty.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """The table in Markdown, with its title as a heading."""
        rows = [[cell.replace("|", "\\|") for cell in row] for row in self.rows]
        lines = [
            f"## {self.title}",
            "",
            f"| {' | '.join(self.headings)} |",
            f"|{'|'.join(['---', *['---:'] * (len(self.headings) - 1)])}|",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
        ]
        return "\n".join([*lines, self.note, ""] if self.note else lines)


def percent(value: float) -> str:
    """A fraction in per cent: 0.774 -> "77.4 %"."""
    return f"{100 * value:.3g} %"
