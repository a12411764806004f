"""Makes notebooks of the tutorials that have Python code: a hook of mkdocs, which offers them beside the pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jupytext
from mkdocs.structure.files import File

TUTORIALS = ("shrink-a-cnn", "sb3-agent")


def notebook_of(page: Path) -> Any:
    """The page as a notebook (nbformat): text cells, and a code cell for each Python block."""
    return jupytext.reads(page.read_text(encoding="utf-8"), fmt="md")


def on_files(files: Any, config: Any) -> Any:
    """Add each tutorial's notebook to the files of the site; mkdocs calls this."""
    for name in TUTORIALS:
        page = Path(config["docs_dir"]) / "tutorials" / f"{name}.md"
        notebook = jupytext.writes(notebook_of(page), fmt="ipynb")
        files.append(File.generated(config, f"tutorials/{name}.ipynb", content=notebook))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Link a tutorial's notebook below its title; mkdocs calls this for each page. Code hosts have no such file."""
    path = Path(page.file.src_uri)
    if path.parent.name != "tutorials" or path.stem not in TUTORIALS:
        return markdown
    title, rest = markdown.split("\n", 1)
    return f"{title}\n\nAlso as [a notebook]({path.stem}.ipynb).\n{rest}"
