"""The site's navigation, and links that lead somewhere. The site itself is built by `.ci/run`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS / "site"))

import build  # noqa: E402 (found by the line above)

PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]+)[^)\s]*\)|src=\"([^\"]+)\"")


def listed(entries: list[dict[str, object]]) -> Iterator[str]:
    for entry in entries:
        for value in entry.values():
            if isinstance(value, str):
                yield value
            else:
                yield from listed(value)  # type: ignore[arg-type]


def test_every_page_has_one_place() -> None:
    found = list(listed(build.navigation()))
    assert sorted(found) == sorted(str(page.relative_to(DOCS)) for page in PAGES[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for found in LINK.finditer(text):
        target = found[1] or found[2]
        assert (page.parent / target).exists(), target


def anchors_of(page: Path) -> set[str]:
    """Give what the site makes of a page's headings."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    words = (
        re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    )
    return {re.sub(r"[\s-]+", "-", heading) for heading in words}


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_links_within_pages_lead_to_headings(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for name, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", text):
        target = page.parent / name if name else page
        assert target.suffix != ".md" or anchor in anchors_of(target), f"{name}#{anchor}"


def test_links_out_of_the_docs_are_paths() -> None:
    page = DOCS / "how-to" / "tools.md"
    text = "[the list](../../README.md#x), [here](agents.md), [there](https://example.com), ![picture](../../x.png)"
    assert build.inside(page, text) == (
        "the list (`README.md`), [here](agents.md), [there](https://example.com), ![picture](../../x.png)"
    )
