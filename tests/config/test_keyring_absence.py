"""Where it is plain that there is no keyring, the library is not imported; in any doubt it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from loomstream.config.keyring_absence import is_plainly_absent

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="NOT TESTED: Linux's rules alone")
Write = Callable[[str], None]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in sys.modules if name.partition(".")[0] == "keyring"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(os, "getuid", lambda: -1)  # /run/user/-1 is nobody's
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("environ", "absent"),
    [
        ({}, True),
        ({"DISPLAY": "", "XDG_RUNTIME_DIR": "{home}/nothing"}, True),
        ({"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere"}, False),
        ({"DISPLAY": ":0"}, False),
        ({"XDG_RUNTIME_DIR": "{home}/run"}, False),
        ({"XDG_CACHE_HOME": "{home}/run"}, False),
        ({"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}, False),
        ({"XDG_CONFIG_HOME": "{home}/chosen"}, False),
        ({"XDG_DATA_HOME": "{home}/chosen"}, False),
    ],
)
def test_what_tells(environ: dict[str, str], home: Path, *, absent: bool) -> None:
    for name in ("run/bus", "chosen/python_keyring/keyringrc.cfg"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    assert is_plainly_absent({name: value.format(home=home) for name, value in environ.items()}) is absent


def test_a_part_of_another_package_is_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = home / "acme_keyring-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-keyring\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[keyring.backends]\nacme = acme_keyring\n")
    assert is_plainly_absent({})
    monkeypatch.syspath_prepend(str(home))
    assert not is_plainly_absent({})


def test_a_library_that_somebody_imported_is_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del home
    monkeypatch.setitem(sys.modules, "keyring", sys)
    assert not is_plainly_absent({})


def test_a_look_for_a_key_imports_no_keyring_there(tmp_path: Path) -> None:
    if Path(f"/run/user/{os.getuid()}/bus").exists():
        pytest.skip("NOT TESTED: this user has a session bus")
    code = (
        "import sys; from loomstream.config import keyring_store as store;"
        "print(store.read_entry('a_key'), store.backend(), 'keyring' in sys.modules)"
    )
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "None Backend(name='', notes=()) False\n"
