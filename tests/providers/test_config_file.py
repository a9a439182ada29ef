"""Where the configuration file is looked for, on every system, and which files are read."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from loomstream import catalog
from loomstream.cli import chat_store
from loomstream.providers.config_file import Place, data_folder, is_shared, places, problem_of
from loomstream.telemetry import audit_log

LINUX, MAC, WINDOWS = "linux", "darwin", "win32"
HOME = {"HOME": "/home/me"}
USER = {"USERPROFILE": "C:\\Users\\me", "PROGRAMDATA": "D:\\Data"}


@pytest.mark.parametrize(
    ("environ", "platform", "paths"),
    [
        (HOME, LINUX, ["/home/me/.loom/looms.yaml", "looms.yaml", "/etc/loom/looms.yaml"]),
        (
            {"HOME": "/Users/me"},
            MAC,
            [
                "/Users/me/.loom/looms.yaml",
                "looms.yaml",
                "/Library/Application Support/loom/looms.yaml",
                "/etc/loom/looms.yaml",
            ],
        ),
        (USER, WINDOWS, ["C:\\Users\\me\\.loom\\looms.yaml", "looms.yaml", "D:\\Data\\loom\\looms.yaml"]),
        (
            {"HOME": "C:\\h"},
            WINDOWS,
            ["C:\\h\\.loom\\looms.yaml", "looms.yaml", "C:\\ProgramData\\loom\\looms.yaml"],
        ),
        (HOME | {"LOOM_DATA_DIR": "~/data"}, LINUX, ["/home/me/data/looms.yaml", "looms.yaml", "/etc/loom/looms.yaml"]),
        (HOME | {"LOOM_DATA_DIR": " rel "}, LINUX, ["rel/looms.yaml", "looms.yaml", "/etc/loom/looms.yaml"]),
        (USER | {"LOOM_DATA_DIR": "~\\data"}, WINDOWS, None),
        (USER | {"LOOM_DATA_DIR": "~/data"}, WINDOWS, None),
    ],
)
def test_places(environ: dict[str, str], platform: str, paths: list[str] | None) -> None:
    found = places(environ, platform)
    if paths is None:
        assert found[0].path in {"C:\\Users\\me\\data\\looms.yaml", "C:\\Users\\me/data\\looms.yaml"}
        return
    assert [place.path for place in found] == paths
    assert [place.own for place in found] == [place.path != "looms.yaml" for place in found]


@pytest.mark.parametrize(
    ("named", "environ", "platform", "path"),
    [
        ("~/x.yaml", HOME, LINUX, "/home/me/x.yaml"),
        ("~\\x.yaml", USER, WINDOWS, "C:\\Users\\me\\x.yaml"),
        ("~other/x.yaml", HOME, LINUX, "~other/x.yaml"),
        ("x.yaml", HOME, MAC, "x.yaml"),
        ("~/x.yaml", {}, WINDOWS, "~/x.yaml"),
    ],
)
def test_a_file_that_is_named_stands_alone(named: str, environ: dict[str, str], platform: str, path: str) -> None:
    assert places(environ | {"LOOM_CONFIG": named}, platform) == (Place(path, own=True),)


def test_the_data_folder() -> None:
    assert data_folder(HOME, LINUX) == "/home/me/.loom"
    assert data_folder(USER, WINDOWS) == "C:\\Users\\me\\.loom"


@pytest.mark.parametrize(
    ("named", "folder"),
    [("~/mine", "/home/me/mine"), ("/data", "/data"), (" ", "/home/me/.loom"), ("~who/x", "~who/x")],
)
def test_all_files_of_the_user_s_own_stand_in_it(named: str, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, "/home/me")
    monkeypatch.setenv("LOOM_DATA_DIR", named)
    found = [catalog.user_file(), audit_log.default_path(), chat_store.last_conversation()]
    assert found == [Path(folder, name) for name in ("models.json", "audit.jsonl", "chat.json")]


@pytest.mark.parametrize(
    ("mode", "platform", "problem", "shared"),
    [
        (stat.S_IFREG | 0o600, LINUX, "", False),
        (stat.S_IFREG | 0o640, LINUX, "", True),
        (stat.S_IFREG | 0o604, MAC, "", True),
        (stat.S_IFREG | 0o660, LINUX, "", True),
        (stat.S_IFREG | 0o602, LINUX, "may be changed by every user of this machine", False),
        (stat.S_IFREG | 0o666, WINDOWS, "", False),
        (stat.S_IFDIR | 0o700, LINUX, "is a folder: name a looms.yaml", False),
        (stat.S_IFIFO | 0o600, LINUX, "is no plain file: name a looms.yaml", False),
        (stat.S_IFCHR | 0o600, WINDOWS, "is no plain file", False),
    ],
)
def test_modes(mode: int, platform: str, problem: str, shared: bool) -> None:  # noqa: FBT001 (a row of the table)
    found = problem_of(mode, platform)
    assert found.startswith(problem)
    assert bool(found) is bool(problem)
    assert is_shared(mode, platform) is shared
