"""A YAML file as values that know their line: for configuration that people write by hand.

Contract: the safe loader's types only, 1 MiB, 10,000 values and 32 levels at most, aliases counted as often as they are
used, no key twice. Every fault is a `ConfigError` with file, line and column; neither it, nor a `repr`, nor a frame
that raises shows a value of the file, for it may hold keys. It imports PyYAML, so it is imported when a file is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import yaml

from loomstream.errors import ConfigError

MAX_BYTES = 1024 * 1024
MAX_VALUES = 10_000
MAX_DEPTH = 32
_LONGEST_PATH = 200
"""Of a longer path an error shows the beginning."""

MAPPING, LIST, NOTHING = "a mapping", "a list", "nothing"
"""The kinds that are no scalars, and null."""

_TAG = "tag:yaml.org,2002:"
_KINDS = {"null": NOTHING, "bool": "true or false", "int": "a whole number", "float": "a number", "str": "a text"}
"""The scalars that a file may hold, and what they are called."""

_NOT_ALLOWED = "only texts, numbers, true, false, lists and mappings are allowed: put anything else in quotes"

_MISREAD = re.compile(r"[-+]?0[0-7_]+$|[-+]?[0-9_]+(:[0-9]+)+")
"""Numbers that YAML 1.1 takes for something else than who writes them: 010 for 8, 1:30 for 90."""

_QUOTED = re.compile(r"'[^']{4,}'|\"[^\"]{4,}\"")
"""What PyYAML's sentences quote from the file, but for single characters."""


class Value:
    """A value of the file; `kind` says in words what it is.

    A mapping has its names in `mapping`, a list its items in `items`, anything else its content in `scalar`.
    """

    __slots__ = ("column", "items", "kind", "line", "mapping", "scalar")

    def __init__(
        self,
        kind: str,
        mark: yaml.Mark | None,
        *,
        scalar: object = None,
        items: Sequence[Value] = (),
        mapping: Mapping[str, Value] | None = None,
    ) -> None:
        self.kind = kind
        self.line = mark.line + 1 if mark else 1
        self.column = mark.column + 1 if mark else 1
        self.scalar = scalar
        self.items = items
        self.mapping = mapping or {}

    def __repr__(self) -> str:
        return f"<{self.kind} at line {self.line}, column {self.column}>"

    def plain(self) -> object:
        """Give the value in Python's own types."""
        if self.kind == MAPPING:
            return {name: value.plain() for name, value in self.mapping.items()}
        return [item.plain() for item in self.items] if self.kind == LIST else self.scalar


def read_yaml(path: Path) -> Value:
    """Give what the file holds; nothing counts as an empty mapping.

    Raises `ConfigError` where the file cannot be read, is too large, is no YAML, or holds what is not allowed.
    """
    found = _read(path)
    if isinstance(found, ConfigError):  # made elsewhere: this frame holds nothing of the file
        raise found
    return found


def fault(path: Path, value: Value, key_path: str, problem: str) -> ConfigError:
    """Give the error that says where in the file something is wrong; a key in the wrong place is not shown.

    Nor is a name's control character: a terminal may do as it says.
    """
    from loomstream.transport.record import without_keys  # noqa: PLC0415 (only where something is wrong)

    shown = key_path if len(key_path) <= _LONGEST_PATH else f"{key_path[:_LONGEST_PATH]}…"
    where = f"{shown}: " if shown else ""
    said = "".join(
        each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in without_keys(where + problem)
    )
    return ConfigError(f"{path}:{value.line}:{value.column}: {said}")


class _Refused(Exception):
    def __init__(self, problem: str, mark: yaml.Mark | None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.mark = mark


def _read(path: Path) -> Value | ConfigError:
    text = _text(path)
    if isinstance(text, ConfigError):
        return text
    try:
        node = _Loader(text).get_single_node()
        return Value(MAPPING, None) if node is None else _Conversion().value(node)
    except _Refused as error:
        problem, mark = error.problem, error.mark
    except yaml.MarkedYAMLError as error:
        problem = _QUOTED.sub("'…'", error.problem or "it cannot be read")
        mark = error.problem_mark or error.context_mark
    except (yaml.YAMLError, ValueError):  # a character that YAML does not allow
        problem, mark = "it holds a character that is not printable", None
    except RecursionError:
        problem, mark = f"it is nested more than {MAX_DEPTH} levels deep", None
    place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
    return ConfigError(f"{path}{place}: this is no configuration that can be read: {problem}")


def _text(path: Path) -> str | ConfigError:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        return ConfigError(f"{path} cannot be read: {error.strerror or error}")
    if len(data) > MAX_BYTES:
        return ConfigError(f"{path} is larger than {MAX_BYTES // 1024} KiB: this is no configuration")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return ConfigError(f"{path}:{line}: this is no UTF-8: save the file as UTF-8")


class _Loader(yaml.SafeLoader):
    """The safe loader, which gives up at a depth that no configuration has: deeper ones cost it seconds."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node, unless it stands too deep."""
        self._depth += 1
        if self._depth > MAX_DEPTH + 2:
            msg = f"it is nested more than {MAX_DEPTH} levels deep"
            raise _Refused(msg, self.peek_event().start_mark)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] (no types)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Conversion:
    """Nodes to values, within the limits."""

    def __init__(self) -> None:
        self._made = 0

    def value(self, node: yaml.Node, depth: int = 0) -> Value:
        self._made += 1
        if self._made > MAX_VALUES:
            msg = f"it holds more than {MAX_VALUES} values (an alias counts as often as it is used)"
            raise _Refused(msg, node.start_mark)
        if depth > MAX_DEPTH:
            msg = f"it is nested more than {MAX_DEPTH} levels deep"
            raise _Refused(msg, node.start_mark)
        match node:
            case yaml.MappingNode() | yaml.SequenceNode() if node.tag not in (f"{_TAG}map", f"{_TAG}seq"):
                raise _Refused(_NOT_ALLOWED, node.start_mark)
            case yaml.MappingNode():
                return Value(MAPPING, node.start_mark, mapping=dict(self._pairs(node, depth)))
            case yaml.SequenceNode():
                items = [self.value(item, depth + 1) for item in node.value]
                return Value(LIST, node.start_mark, items=items)
            case _:
                return _scalar(node)

    def _pairs(self, node: yaml.MappingNode, depth: int) -> Iterator[tuple[str, Value]]:
        seen: set[str] = set()
        for key, value in node.value:
            name = _scalar(key).scalar if isinstance(key, yaml.ScalarNode) else None
            if not isinstance(name, str):
                msg = "the name of an entry must be a text"
                raise _Refused(msg, key.start_mark)
            if name in seen:
                msg = "the same name stands here twice"
                raise _Refused(msg, key.start_mark)
            seen.add(name)
            yield name, self.value(value, depth + 1)


def _scalar(node: yaml.Node) -> Value:
    short = node.tag.removeprefix(_TAG)
    if short not in _KINDS or not isinstance(node, yaml.ScalarNode):
        raise _Refused(_NOT_ALLOWED, node.start_mark)
    if short in ("int", "float") and _MISREAD.match(node.value):
        msg = "YAML would read this as octal, or as minutes and seconds: write a plain number, or put it in quotes"
        raise _Refused(msg, node.start_mark)
    try:
        content = cast("object", yaml.SafeLoader("").construct_object(node))  # pyright: ignore[reportUnknownMemberType] (no types)
    except (yaml.YAMLError, ValueError):
        msg = f"this is not {_KINDS[short]}: put it in quotes"
        raise _Refused(msg, node.start_mark) from None
    return Value(_KINDS[short], node.start_mark, scalar=content)
