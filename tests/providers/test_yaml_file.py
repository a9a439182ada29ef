"""YAML files: every fault has its line, and no error shows a value."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

from loomstream.errors import ConfigError
from loomstream.providers.yaml_file import MAX_BYTES, read_yaml

CANARY = "sk-canary-7f3a9c2e41d8"


def read(tmp_path: Path, text: str | bytes) -> object:
    path = tmp_path / "looms.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(path).plain()


def _walk(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def error_of(tmp_path: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    inside = next(trace for trace in _walk(caught.value.__traceback__) if trace.tb_frame.f_code is read_yaml.__code__)
    error = caught.value.with_traceback(inside)  # our own frames hold the text
    assert CANARY not in "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    return str(caught.value).removeprefix(str(tmp_path / "looms.yaml"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ("# nothing\n", {}),
        ("a: 1\nb: 1.5\nc: true\nd: text\ne:\n", {"a": 1, "b": 1.5, "c": True, "d": "text", "e": None}),
        ("a: [1, {b: 'x'}]\n", {"a": [1, {"b": "x"}]}),
        (b"\xef\xbb\xbfa: 1\n", {"a": 1}),
        ("a: &x [1, 2]\nb: *x\n", {"a": [1, 2], "b": [1, 2]}),
        ("a: 0x10\nb: 1_000\n", {"a": 16, "b": 1000}),
    ],
)
def test_what_can_be_read(tmp_path: Path, text: str | bytes, value: object) -> None:
    assert read(tmp_path, text) == value


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"a: [1, {CANARY}\n", ":2:1: this is no configuration that can be read: "),
        ("a:\n\t- b\n", ":2:1: "),
        (f"a: 1\na: {CANARY}\n", ":2:1: this is no configuration that can be read: the same name stands here twice"),
        (f"a: *{CANARY}\n", ":1:4: this is no configuration that can be read: found undefined alias"),
        (f"a: !!python/object/apply:os.system ['{CANARY}']\n", ":1:4: "),
        (f"a: !secret {CANARY}\n", ":1:4: "),
        ("a: 2026-11-22\n", ":1:4: "),
        ("a: !!int x\n", ":1:4: this is no configuration that can be read: this is not a whole number"),
        ("1: a\n", ":1:1: this is no configuration that can be read: the name of an entry must be a text"),
        ("? [a]\n: b\n", ":1:3: "),
        ("a: 1\n---\nb: 2\n", ":2:1: "),
        ("a: &a [*a]\n", ":1:4: this is no configuration that can be read: it is nested more than 32 levels deep"),
        (BOMB, "it holds more than 10000 values (an alias counts as often as it is used)"),
        ("a: " + "[" * 2000 + "]" * 2000, "nested more than 32 levels deep"),
        ("a: " + "[" * 40 + "]" * 40, "nested more than 32 levels deep"),
        (b"a: 1\nb: \xff\n", ":2: this is no UTF-8: save the file as UTF-8"),
        ("a: \x00\n", "a character that is not printable"),
        ("<<: {a: 1}\n", ":1:1: "),
        ("#" * (MAX_BYTES + 1), " is larger than 1024 KiB: this is no configuration"),
    ],
)
def test_what_cannot_be_read_says_where(tmp_path: Path, text: str | bytes, what: str) -> None:
    assert what in error_of(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml cannot be read: No such file"):
        read_yaml(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)


def test_values_do_not_show_what_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "looms.yaml"
    path.write_text(f"a: {CANARY}\n", "utf-8")
    assert CANARY not in repr(read_yaml(path))
    assert repr(read_yaml(path).mapping["a"]) == "<a text at line 1, column 4>"


@pytest.mark.parametrize("text", ["a: 010", "a: 1:30", "a: 1:30.5", "a: -017"])
def test_a_number_that_means_another_one_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "looms.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"looms\.yaml:1:4: .*write a plain number"):
        read_yaml(file)
