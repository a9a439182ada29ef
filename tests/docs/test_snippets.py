"""Every Python snippet of the README and the docs compiles, names what there is, and runs where it can run offline."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import loomstream

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = ("docs/tutorial.md", "docs/how-to/live-ui.md", "docs/how-to/simulator.md", "docs/how-to/bench.md")
"""Pages whose snippets run, one after the other, as one program; what is printed stands in the `text` block behind."""
BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


class Snippet(NamedTuple):
    page: str
    line: int
    language: str
    text: str


def snippets() -> Iterator[Snippet]:
    for page in PAGES:
        text = page.read_text("utf-8")
        for found in BLOCK.finditer(text):
            indent, language, body = found.groups()
            body = re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)
            yield Snippet(str(page.relative_to(ROOT)), text.count("\n", 0, found.start()) + 1, language, body)


ALL = list(snippets())
PYTHON = [snippet for snippet in ALL if snippet.language in ("python", "py")]


def name_of(snippet: Snippet) -> str:
    return f"{snippet.page}:{snippet.line}"


def tree_of(snippet: Snippet) -> ast.Module:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
    return compile(snippet.text, name_of(snippet), "exec", flags)  # type: ignore[no-any-return]


@pytest.mark.parametrize("snippet", PYTHON, ids=name_of)
def test_it_compiles_and_names_what_there_is(snippet: Snippet) -> None:
    for node in ast.walk(tree_of(snippet)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "loomstream":
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                found = hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")
                assert found, f"{node.module} has no {alias.name}"
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ("ls", "loomstream")
        ):
            assert hasattr(loomstream, node.attr), f"loomstream has no {node.attr}"


@pytest.mark.parametrize("page", RUN)
def test_it_runs_and_prints_what_it_says(page: str) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    for snippet in (snippet for snippet in ALL if snippet.page == page):
        if snippet.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(snippet.text, name_of(snippet), "exec"), names)  # noqa: S102 (the page's own program)
            printed = out.getvalue()
        elif snippet.language == "text":
            assert printed == snippet.text, name_of(snippet)


def test_the_blocks_are_found() -> None:
    assert len(PYTHON) > 20
    assert {snippet.page for snippet in PYTHON} >= set(RUN)


def test_images_are_small_and_shown() -> None:
    texts = "".join(page.read_text("utf-8") for page in PAGES)
    images = list((ROOT / "docs" / "images").iterdir())
    assert images
    for image in images:
        assert image.stat().st_size < 200_000, image
        assert f"images/{image.name}" in texts, f"{image} is shown nowhere"
