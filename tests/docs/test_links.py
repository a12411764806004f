"""Links of the README and of the pages work where the repository is browsed: no symlink, no missing file or heading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/results/*.md")]
PAGES = sorted(str(page.relative_to(ROOT)) for page in SOURCES)
CODE_PAGES = ["CONTRIBUTING.md", *(page for page in PAGES if page.startswith(("docs/concepts/", "docs/extending/")))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    """The page without its code: blocks and backticked words."""
    without_blocks = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda code: code[0].strip("`").replace("](", "] ("), without_blocks)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def fault(page: Path, link: str) -> str | None:
    """Why the link does not work on a code host, or None."""
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    if not target.exists():
        return "no such file"
    if any(part.is_symlink() for part in (target, *target.parents) if part != ROOT and ROOT in part.parents):
        return "leads through a symlink"
    if anchor and anchor not in anchors(target):
        return "no such heading"
    return None


def test_pages_with_links_are_found() -> None:
    assert {"README.md", "docs/start.md", "bench/results/README.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page: str) -> None:
    links = [link for link in LINK.findall(prose(ROOT / page)) if not re.match(r"[a-z]+:", link)]
    faults = {link: fault(ROOT / page, link) for link in links}
    assert not {link: reason for link, reason in faults.items() if reason}


def test_the_readme_leads_to_every_guide_and_concept() -> None:
    readme = (ROOT / "README.md").read_text()
    assert not [page for page in PAGES if page.startswith(("docs/guide/", "docs/concepts/")) and page not in readme]


@pytest.mark.parametrize("page", CODE_PAGES)
def test_every_file_of_the_code_that_a_page_names_exists(page: str) -> None:
    folders = ("gsprune", "kernels", "csrc", "scripts", "tests", "examples", "docs/sweeps")
    files = [f"/{path.relative_to(ROOT)}" for folder in folders for path in (ROOT / folder).rglob("*.*")]
    names = re.findall(r"`([\w./-]+\.(?:py|cpp|hpp|inc|sh))`", (ROOT / page).read_text())
    assert not [name for name in names if not any(file.endswith(f"/{name}") for file in files)]


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("docs/nowhere.md", "no such file"),
        ("docs/start.md#nowhere", "no such heading"),
        ("gsprune/kernels/reference.py", "leads through a symlink"),
        ("docs/start.md#next", None),
    ],
)
def test_broken_links_are_noticed(link: str, reason: str | None) -> None:
    assert fault(ROOT / "README.md", link) == reason
