"""Takes one value out of the text of a `looms.yaml`, and leaves everything else as its author wrote it.

Contract: only the value's own lines, or its characters between the braces, go; a section that holds nothing else goes
with it, unless a comment stands in it. What comes of it is read back, and must differ from what was there in that one
value; where the file is written in a way that this cannot do, nothing is changed and the error says so.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, cast

import yaml

from loomstream.config import edit
from loomstream.config.private_file import locked, write_private
from loomstream.config.table import row_of

_OWN_LINE = re.compile(r"^\s*#", re.MULTILINE)
_COMMENT = re.compile(r"(?:^|\s)#")
_COMMA_BEHIND = re.compile(r"\s*,[ \t]*")
_COMMA_BEFORE = re.compile(r",\s*\Z")


class _Entry(NamedTuple):
    """An entry of a mapping, with the mapping."""

    parent: yaml.MappingNode
    key: yaml.Node
    value: yaml.Node


def unset_value(file: Path, path: str) -> bool:
    """Take a setting out of the file; False where the file does not say it. A secret may be taken out too.

    Raises `ConfigError` for a path that is no setting, and for a file that cannot be edited so; `OSError` where it
    cannot be written.
    """
    row = row_of(path)
    if not file.exists():
        return False
    with locked(file):
        before = edit.text_of(file)
        root = cast("yaml.Node | None", yaml.compose(before, Loader=yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType] (no types)
        ways = (_way(root, each.split(".")) for each in (row.path, *row.aliases))
        way = next((way for way in ways if way), None)
        if way is None or root is None:
            return False
        after = _without(before, root, way, file, path)
        edit.check(file, before, after, row, None)
        write_private(file, after)
    return True


def _way(root: yaml.Node | None, names: list[str]) -> list[_Entry]:
    """Give the entries that lead to the value, the outermost first; none where it is not there."""
    found: list[_Entry] = []
    node = root
    for name in names:
        pairs = cast("list[tuple[yaml.Node, yaml.Node]]", node.value) if isinstance(node, yaml.MappingNode) else []
        pair = next((pair for pair in pairs if pair[0].value == name), None)
        if pair is None:
            return []
        found.append(_Entry(cast("yaml.MappingNode", node), *pair))
        node = pair[1]
    return found


def _without(text: str, root: yaml.Node, way: list[_Entry], file: Path, path: str) -> str:
    if any(edit.times(root, entry.value) > 1 for entry in way):
        raise edit.by_hand(file, way[-1].key, [path])
    for depth, entry in enumerate(way):
        start, end = _span(text, entry, file, path)
        inner = way[depth + 1 :]
        alone = all(len(each.parent.value) == 1 for each in inner)
        if not inner or (alone and not _is_commented(text, start, end, way[depth:])):
            return text[:start] + text[end:]
    raise edit.by_hand(file, way[-1].key, [path])


def _is_commented(text: str, start: int, end: int, way: list[_Entry]) -> bool:
    """Say whether a comment stands in a section: on a line of its own, or behind what opens or closes a section."""
    value = way[-1].key.start_mark.index
    braces = next((each.parent for each in way[1:] if each.parent.flow_style), None)
    behind = "" if braces is None else text[braces.end_mark.index : edit.line_end(text, braces.end_mark.index)]
    return bool(_OWN_LINE.search(text, start, end) or _COMMENT.search(text, start, value) or _COMMENT.search(behind))


def _span(text: str, entry: _Entry, file: Path, path: str) -> tuple[int, int]:
    """Give where the entry stands: whole lines, or between braces with the comma that parts it from another."""
    start, end = entry.key.start_mark.index, max(entry.key.end_mark.index, edit.end_of(entry.value))
    if entry.parent.flow_style:
        start, end = _with_comma(text, start, max(end, entry.value.end_mark.index))
        if "#" in text[start:end]:
            raise edit.by_hand(file, entry.key, [path])
        return start, end
    line = text.rfind("\n", 0, start) + 1
    if text[line:start].strip(" \ufeff"):  # something stands before it
        raise edit.by_hand(file, entry.key, [path])
    return line + text[line:start].count("\ufeff"), edit.line_end(text, end)


def _with_comma(text: str, start: int, end: int) -> tuple[int, int]:
    if behind := _COMMA_BEHIND.match(text, end):
        return start, behind.end()
    before = _COMMA_BEFORE.search(text, 0, start)
    return (start if before is None else before.start()), end
