"""A file that is written whole: for its owner alone, and with nothing left beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from loomstream.whole_file import write_whole


def test_it_takes_the_old_file_s_place(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: modes are POSIX's")
def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"x")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)  # a folder that is not empty is not replaced
    with pytest.raises(OSError, match="a"):
        write_whole(tmp_path / "a", b"x")
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]
