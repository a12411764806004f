"""The troubleshooting page explains every reason for which the tracer protects channels."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/guide/troubleshooting.md").read_text()


def constant_parts(node: ast.expr) -> list[str]:
    """The literal pieces of a reason; a constant of a module (`OUTPUT`) has none."""
    values = node.values if isinstance(node, ast.JoinedStr) else [node]
    texts = [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    return [text.strip(" :") for text in texts if len(text.strip(" :")) > 2]


def reasons() -> list[str]:
    found = set()
    for path in sorted((ROOT / "gsprune/tracing").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if is_call and node.func.attr == "protect" and len(node.args) == 2:
                found.update(constant_parts(node.args[1]))
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("UNEVEN", "OUTPUT"):
                found.update(constant_parts(node.value))
    return sorted(found)


def test_the_search_finds_the_reasons() -> None:
    assert {"one channel picked by its number", "has no rule"} <= set(reasons())


@pytest.mark.parametrize("reason", reasons())
def test_every_reason_is_explained(reason: str) -> None:
    assert re.search(re.escape(reason), PAGE), f"docs/guide/troubleshooting.md does not explain {reason!r}"
