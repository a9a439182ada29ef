"""What a docstring says of a function and of its parameters: Google, numpy and reST style.

Contract: pure text work, which never fails; what it does not recognise it leaves out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from inspect import cleandoc
from typing import NamedTuple


class Docstring(NamedTuple):
    """The first paragraph, on one line, and a description for each parameter that has one."""

    summary: str
    parameters: dict[str, str]


_PARAMETERS = r"(?:Args|Arguments|Params|Parameters|Keyword Args|Keyword Arguments|Other Parameters)"
_GOOGLE_SECTION = re.compile(rf"{_PARAMETERS}:\s*")
_GOOGLE_ENTRY = re.compile(r"(\s+)\*{0,2}(\w+)\s*(?:\([^)]*\)\s*)?:\s*(.*)")
_NUMPY_SECTION = re.compile(rf"{_PARAMETERS}\s*")
_NUMPY_ENTRY = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?")
_UNDERLINE = re.compile(r"-{3,}\s*")
_REST_ENTRY = re.compile(r":(?:param|parameter|arg|argument|key|keyword)\s+(?:[^:]*\s)?\*{0,2}(\w+)\s*:\s*(.*)")
_BREAK = re.compile(r"\s*|\w[\w ]*:\s*|:\w.*:.*")
"""What ends the first paragraph: a blank line, a section's header, a field."""


def parse(text: str | None) -> Docstring:
    """Give what a docstring says."""
    lines = cleandoc(text or "").splitlines()
    found = (*_google(lines), *_numpy(lines), *_rest(lines))
    return Docstring(_summary(lines), {name: words.strip() for name, words in found if name and words.strip()})


def _summary(lines: Sequence[str]) -> str:
    paragraph: list[str] = []
    for line in lines:
        if _BREAK.fullmatch(line):
            break
        paragraph.append(line.strip())
    return " ".join(paragraph)


def _google(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Entries are indented under their section's header, what continues them deeper."""
    inside, indent, name, words = False, 0, "", list[str]()
    for line in (*lines, "."):
        entry = _GOOGLE_ENTRY.fullmatch(line) if inside else None
        if entry and (not name or len(entry[1]) <= indent):
            yield name, " ".join(words)
            indent, name, words = len(entry[1]), entry[2], [entry[3]]
        elif inside and line[:1].isspace():
            words.append(line.strip())
        elif line.strip():
            yield name, " ".join(words)
            inside, name, words = bool(_GOOGLE_SECTION.fullmatch(line)), "", []


def _numpy(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """A section's header is underlined; entries stand at the margin, their descriptions are indented."""
    inside, names, words = False, list[str](), list[str]()
    for line, following in zip((*lines, "."), (*lines[1:], "", ""), strict=False):
        if line[:1].isspace():
            words.append(line.strip())
            continue
        if not line or _UNDERLINE.fullmatch(line):
            continue
        for name in names:
            yield name, " ".join(words)
        if _UNDERLINE.fullmatch(following):
            inside, names, words = bool(_NUMPY_SECTION.fullmatch(line)), [], []
        elif inside:
            entry = _NUMPY_ENTRY.fullmatch(line)
            names, words = (re.findall(r"\w+", entry[1]) if entry else []), []


def _rest(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """A field goes on until a blank line or the next field."""
    name, words = "", list[str]()
    for line in (*lines, ""):
        entry = _REST_ENTRY.fullmatch(line)
        if entry or not line.strip() or line.startswith(":"):
            yield name, " ".join(words)
            name, words = (entry[1], [entry[2]]) if entry else ("", [])
        else:
            words.append(line.strip())
