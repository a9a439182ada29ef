"""Sets one value in the text of a `looms.yaml`, and leaves everything else as its author wrote it.

Contract: only the value's own characters change, or lines are added at the end of its section: comments, order and
quoting stay. The result is read back, and must differ from what was there in that one value; where the file is written
in a way that this cannot do (an alias, a value over several lines), nothing is changed and the error says so. A secret
is never written.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, cast

import yaml

from loomstream.config import kinds
from loomstream.config.load import load
from loomstream.config.private_file import FILE_MODE, check_plain, locked, write_private
from loomstream.config.settings import SettingRow, Settings, Value
from loomstream.config.table import row_of
from loomstream.errors import ConfigError, LoomstreamError
from loomstream.providers.yaml_file import read_yaml

_INDENT = 2
_WIDTH = 1 << 16
_LIKE_A_KEY = re.compile(
    r"sk-[\w-]{12,}|(?:AKIA|ASIA)[A-Z0-9]{12,}|AIza[\w-]{20,}|hf_\w{12,}|(?:gsk_|xai-|pplx-|nvapi-)[\w-]{12,}"
    r"|ey[\w-]+\.ey[\w-]+\.[\w-]+"
)
"""The beginnings that vendors give their keys."""

_BY_HAND = ("headers",)
"""Kinds that no single word of a command line can be."""


class _Change(NamedTuple):
    start: int
    end: int
    text: str


def set_value(file: Path, path: str, text: str) -> Value:
    """Write a setting into the file, which is made where it is not there; give the value that it has now.

    Raises `ConfigError` for a path that is no setting, a value that it cannot have, a secret, and a file that cannot be
    edited or would be no configuration; `OSError` where it cannot be written.
    """
    row = settable(path, text)
    value = _parsed(row, text)
    with locked(file):
        before = text_of(file)
        after = _edited(before, row, path, _written(row, value, text), file)
        check(file, before, after, row, value)
        write_private(file, after)
    return value


def write_new(file: Path, text: str) -> None:
    """Write a whole new file, mode 0600. Raises `ConfigError` where the text is no configuration, and `OSError`."""
    found = _read(file, text)
    if isinstance(found, LoomstreamError):
        raise found
    write_private(file, text, mode=FILE_MODE)


def typed(values: Mapping[str, str]) -> dict[str, Value]:
    """Give settings, by path, as what they are. Raises `ConfigError` for what `set_value` refuses."""
    return {path: _parsed(settable(path, text), text) for path, text in values.items()}


def _parsed(row: SettingRow, text: str) -> Value:
    try:
        return kinds.parse(row, text)
    except kinds.Unfit as error:
        problem = f"{row.path}: {error}"
    raise ConfigError(problem)


def settable(path: str, text: str) -> SettingRow:
    """Give the row of a setting. Raises `ConfigError` where it is a secret, or the text looks like one."""
    from loomstream.config.known_keys import known_keys  # noqa: PLC0415 (looks through installed packages)

    key = next((key for key in known_keys() if path in (key.name, key.path, f"llm.{key.name}")), None)
    if key is not None:
        msg = f"{path} is a secret, and does not belong in a file: run looms config set-key {key.name}"
        raise ConfigError(msg)
    row = row_of(path)
    if row.secret or row.kind in _BY_HAND:
        msg = f"{path} may hold secrets and is not set here: write it into the file yourself, and chmod 600 it"
        raise ConfigError(msg)
    if _LIKE_A_KEY.search(text):
        msg = f"{path}: this looks like a key, which does not belong in a file: run looms config set-key NAME"
        raise ConfigError(msg)
    return row


def text_of(file: Path) -> str:
    """Give what the file holds, empty where there is none. Raises `ConfigError` where it is no YAML, or too much."""
    check_plain(file)
    if not file.exists():
        return ""
    read_yaml(file)
    return file.read_bytes().decode("utf-8")


def _written(row: SettingRow, value: Value, text: str) -> str:
    """Give the value as YAML, on one line."""
    plain = text.strip() if row.kind == "duration" else list(value) if isinstance(value, tuple) else value
    style = '"' if "\n" in text.strip() else None  # any other style would take several lines
    dumped = yaml.safe_dump(plain, default_flow_style=True, default_style=style, width=_WIDTH, allow_unicode=True)
    return dumped.removesuffix("\n").removesuffix("\n...").strip()


# --- the text ------------------------------------------------------------------------------------


def _edited(text: str, row: SettingRow, path: str, written: str, file: Path) -> str:
    root = cast("yaml.Node | None", yaml.compose(text, Loader=yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType] (no types)
    return _applied(text, _change(text, root, _place(root, row, path), written, file))


def _applied(text: str, change: _Change) -> str:
    lines = change.text if "\r\n" not in text else change.text.replace("\n", "\r\n")
    return text[: change.start] + lines + text[change.end :]


def _place(root: yaml.Node | None, row: SettingRow, path: str) -> list[str]:
    """Give the names that lead to the value: under an alias where the file has it there."""
    there = next((each for each in (row.path, *row.aliases) if _found(root, each.split("."))[1] == []), path)
    return (there if there in (row.path, *row.aliases) else row.path).split(".")


def _found(root: yaml.Node | None, names: list[str]) -> tuple[yaml.Node | None, list[str]]:
    """Give the deepest node on the way, and the names that are not there."""
    node = root
    for position, name in enumerate(names):
        inner = _entry(node, name)
        if inner is None:
            return node, names[position:]
        node = inner
    return node, []


def _entry(node: yaml.Node | None, name: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    pairs = cast("list[tuple[yaml.Node, yaml.Node]]", node.value)
    return next((value for key, value in pairs if key.value == name), None)


def _change(text: str, root: yaml.Node | None, names: list[str], written: str, file: Path) -> _Change:
    node, missing = _found(root, names)
    if node is None:
        gap = "" if not text or text.endswith("\n") else "\n"
        return _Change(len(text), len(text), gap + _lines(missing, written, 0))
    if times(root, node) > 1:
        raise by_hand(file, node, names)
    if not missing:
        if not isinstance(node, yaml.ScalarNode) and not getattr(node, "flow_style", False):
            raise by_hand(file, node, names)
        return _replaced(text, node, written, names, file)
    inner = "".join(f"{name}: {{" for name in missing[:-1]) + f"{missing[-1]}: {written}" + "}" * (len(missing) - 1)
    if isinstance(node, yaml.ScalarNode) and node.start_mark.index < node.end_mark.index:  # a null that is written out
        return _replaced(text, node, f"{{{inner}}}", names, file)
    if isinstance(node, yaml.MappingNode) and node.flow_style:
        end = node.end_mark.index - 1
        return _Change(end, end, f", {inner}" if node.value else inner)
    return _added(text, node, missing, written, depth=len(names) - len(missing))


def _replaced(text: str, node: yaml.Node, written: str, names: list[str], file: Path) -> _Change:
    start, end = node.start_mark.index, node.end_mark.index
    if "\n" in text[start:end] or text[start : start + 1] in ("&", "*", "!", "|", ">"):
        raise by_hand(file, node, names)
    gap = "" if start == 0 or text[start - 1].isspace() else " "  # nothing stood behind the colon
    return _Change(start, end, gap + written)


def _added(text: str, node: yaml.Node, missing: list[str], written: str, *, depth: int) -> _Change:
    """Add lines behind the last one of a section, as far in as its others."""
    has_entries = isinstance(node, yaml.MappingNode) and node.value
    column = node.start_mark.column if has_entries else depth * _INDENT
    at = line_end(text, end_of(node))
    gap = "" if at == 0 or text[at - 1] == "\n" else "\n"
    return _Change(at, at, gap + _lines(missing, written, column))


def end_of(node: yaml.Node) -> int:
    """Give the index at which the last value of a section ends."""
    while isinstance(node, yaml.MappingNode | yaml.SequenceNode) and node.value and not node.flow_style:
        last = node.value[-1]
        node = cast("yaml.Node", last[1] if isinstance(last, tuple) else last)
    mark = node.end_mark
    return mark.index - 1 if mark.column == 0 and mark.index else mark.index


def line_end(text: str, index: int) -> int:
    """Give the index behind the line that an index is in."""
    found = text.find("\n", index)
    return len(text) if found < 0 else found + 1


def _lines(names: list[str], written: str, column: int) -> str:
    head = [f"{' ' * (column + _INDENT * step)}{name}:" for step, name in enumerate(names)]
    return "\n".join(head) + f" {written}\n"


def times(root: yaml.Node | None, wanted: yaml.Node) -> int:
    """Say how often a node is used: more than once where an alias leads to it."""
    if root is None:
        return 0
    if root is wanted:
        return 1
    if isinstance(root, yaml.MappingNode):
        return sum(times(value, wanted) for _, value in cast("list[tuple[yaml.Node, yaml.Node]]", root.value))
    if isinstance(root, yaml.SequenceNode):
        return sum(times(item, wanted) for item in cast("list[yaml.Node]", root.value))
    return 0


def by_hand(file: Path, node: yaml.Node, names: list[str]) -> ConfigError:
    """Give the error for what is written in a way that this cannot change."""
    place = f"{file}:{node.start_mark.line + 1}"
    return ConfigError(f"{place}: {'.'.join(names)} is written in a way that cannot be changed here: edit the line")


# --- what comes of it ----------------------------------------------------------------------------


def check(file: Path, before: str, after: str, row: SettingRow, value: Value) -> None:
    """Raise `ConfigError` where the new text is no configuration, or says anything else than is wanted."""
    new, old = _read(file, after), _read(file, before)
    if isinstance(new, LoomstreamError):
        why = f"the file would be wrong: {new}" if not isinstance(old, LoomstreamError) else f"it is wrong now: {old}"
        msg = f"nothing was changed, for {why}"
        raise ConfigError(msg)
    same = isinstance(old, LoomstreamError) or _others(old, row) == _others(new, row)
    if new.given(row.path) != value or not same:
        msg = f"{file}: {row.path} cannot be set without changing more than it: edit the file"
        raise ConfigError(msg)


def _read(file: Path, text: str) -> Settings | LoomstreamError:
    """Give the settings of a text alone: no variable counts."""
    descriptor, name = tempfile.mkstemp(suffix=".yaml")
    try:
        with os.fdopen(descriptor, "wb") as made:
            made.write(text.encode("utf-8"))
        return load(name, environ={})
    except LoomstreamError as error:
        return type(error)(str(error).replace(name, str(file)))
    finally:
        Path(name).unlink()


def _others(settings: Settings, row: SettingRow) -> dict[str, Value]:
    return {path: value for path, value in settings.values.items() if path != row.path}
