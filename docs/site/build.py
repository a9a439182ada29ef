"""Builds the docs as a site: `python docs/site/build.py FOLDER`. Needs the extra `docs`.

Contract: strict, so a link or an anchor that leads nowhere fails the build. The navigation comes from the folders: a
page that is added needs no entry anywhere. A link out of the docs, which works in the repository, is shown as a path.
Nothing is written into the repository.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

SITE = Path(__file__).resolve().parent
DOCS, ROOT = SITE.parent, SITE.parent.parent
_FOLDERS = (("How to", "how-to"), ("Providers", "reference"), ("API", "reference/api"), ("Decisions", "decisions"))
_FIRST = ("index.md", "tutorial.md")
_MORE = ("cli.md", "errors.md", "benchmarks.md", "glossary.md", "CONTRIBUTING.md", "CHANGELOG.md")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def title(page: Path) -> str:
    """Give a page's title: its first heading."""
    found = _TITLE.search(page.read_text("utf-8"))
    return found[1].replace("`", "") if found else page.stem


def _rank(page: Path) -> tuple[bool, str]:
    """Give a page's place: the folder's own first, numbered ones by their number, the others by their title."""
    return page.name != "README.md", page.name if page.name[0].isdigit() else title(page).lower()


def navigation(docs: Path = DOCS) -> list[dict[str, Any]]:
    """Give the navigation: every page of the docs, once."""
    first = [{title(docs / name): name} for name in _FIRST]
    sections = [
        {heading: [{title(page): f"{folder}/{page.name}"} for page in sorted((docs / folder).glob("*.md"), key=_rank)]}
        for heading, folder in _FOLDERS
    ]
    more = [{title(docs / name): name} for name in _MORE]
    return [*first, *(section for section in sections if all(section.values())), {"More": more}]


def inside(page: Path, text: str, docs: Path = DOCS) -> str:
    """Give a page's text in which links out of the docs are paths."""

    def shown(link: re.Match[str]) -> str:
        label, target, _ = link.groups()
        found = (page.parent / target).resolve()
        if ":" in target or found.is_relative_to(docs) or not found.is_relative_to(docs.parent):
            return link[0]
        return f"{label} (`{found.relative_to(docs.parent)}`)"

    return _LINK.sub(shown, text)


def build(target: Path) -> int:
    """Build the site; give the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        shutil.copytree(DOCS, project / "docs", ignore=shutil.ignore_patterns("site", "__pycache__"))
        for page in DOCS.rglob("*.md"):
            copied = project / "docs" / page.relative_to(DOCS)
            copied.write_text(inside(page, page.read_text("utf-8")), "utf-8")
        config = yaml.safe_load((SITE / "mkdocs.yml").read_text("utf-8"))
        config["nav"] = navigation()
        config["plugins"][1]["mkdocstrings"]["handlers"]["python"]["paths"] = [str(ROOT)]
        (project / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
        command = [sys.executable, "-m", "zensical", "build", "--strict", "-f", "mkdocs.yml"]
        done = subprocess.run(command, cwd=project, check=False)  # noqa: S603 (our own command)
        if done.returncode == 0:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(project / "site", target)
        return done.returncode


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004 (the program and its folder)
        sys.exit("usage: python docs/site/build.py FOLDER")
    sys.exit(build(Path(sys.argv[1])))
