"""Adds the pages of bench/results to the site as `measurements/`: a hook of mkdocs.

Pages of docs/ link to `../../bench/results/...`, which works on a code host. The hook points these links into the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

RESULTS = Path(__file__).parents[1] / "bench" / "results"
LINK = re.compile(r"\]\((?:\.\./)+bench/results/")


def on_files(files: Any, config: Any) -> Any:
    """Add the measurements and their pictures; mkdocs calls this."""
    for path in sorted(RESULTS.rglob("*.*")):
        name = f"measurements/{path.relative_to(RESULTS).as_posix()}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to bench/results at the pages that `on_files` adds; mkdocs calls this for each page."""
    target = posixpath.relpath("measurements", posixpath.dirname(page.file.src_uri) or ".")
    return LINK.sub(f"]({target}/", markdown)
