"""The system's keyring as a Linux desktop has it: gnome-keyring behind a bus of its own, read by another client."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from click.testing import CliRunner
from keyring.backends import SecretService

from loomstream.cli.group import looms
from loomstream.config.keyring_store import backend
from loomstream.config.keys import resolve_key
from loomstream.config.known_keys import known_keys
from tests.conftest import SkipLoudly

PATIENCE_S, PAUSE_S = 20.0, 0.05
NEEDED = ("dbus-run-session", "dbus-send", "gnome-keyring-daemon", "secret-tool")
REMEDY = "apt-get install gnome-keyring dbus dbus-bin libsecret-tools"
DAEMON = (
    'echo $$; echo "$DBUS_SESSION_BUS_ADDRESS"; exec gnome-keyring-daemon --foreground --unlock --components=secrets'
)
CANARY = "sk-canary-secret-service-0123456789"


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory, skip_loudly: SkipLoudly) -> Iterator[dict[str, str]]:
    """Start a bus with an unlocked keyring; give the environment in which it is found."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        skip_loudly(", ".join(missing), REMEDY)
    home = tmp_path_factory.mktemp("keyring")
    home.chmod(0o700)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DBUS_", "XDG_"))}
    environment |= {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "XDG_DATA_HOME": str(home / "data")}
    command = [tool("dbus-run-session"), "--", "sh", "-c", DAEMON]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        started = [int(process.stdout.readline())]
        environment["DBUS_SESSION_BUS_ADDRESS"] = process.stdout.readline().decode().strip()
        process.stdin.write(b"password of the keyring")
        process.stdin.close()
        try:
            wait_for_service(environment)
            yield environment
        finally:
            os.kill(started[0], signal.SIGTERM)  # the keyring itself: the bus ends with it
            process.wait(PATIENCE_S)


def tool(name: str) -> str:
    found = shutil.which(name)
    assert found is not None
    return found


def wait_for_service(environment: dict[str, str]) -> None:
    ask = [tool("dbus-send"), "--session", "--print-reply", "--dest=org.freedesktop.DBus", "/"]
    ask += ["org.freedesktop.DBus.NameHasOwner", "string:org.freedesktop.secrets"]
    for _ in range(round(PATIENCE_S / PAUSE_S)):
        if b"true" in subprocess.run(ask, env=environment, capture_output=True, check=False).stdout:
            return
        time.sleep(PAUSE_S)
    pytest.fail("gnome-keyring-daemon did not start")


@pytest.fixture
def service(
    bus: dict[str, str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> dict[str, str]:
    request.getfixturevalue("no_keys")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", bus["DBUS_SESSION_BUS_ADDRESS"])
    monkeypatch.chdir(tmp_path)
    keyring.set_keyring(SecretService.Keyring())  # `no_keys` puts the former one back
    return bus


def run(*arguments: str, given: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(looms, ["config", *arguments], input=given)
    return result.exit_code, result.stdout


def other_client(service: dict[str, str], *arguments: str, given: str = "") -> str:
    done = subprocess.run(
        [tool("secret-tool"), *arguments],
        env=service,
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.stdout


def test_what_is_set_is_read_back_by_another_client(service: dict[str, str]) -> None:
    assert backend().name == "keyring.backends.SecretService.Keyring"
    assert run("set-key", "anthropic_api_key", given=f"{CANARY}\n") == (
        0,
        "stored: anthropic_api_key (sk-c...6789) in keyring.backends.SecretService.Keyring, service loom\n",
    )
    assert other_client(service, "lookup", "service", "loom", "username", "anthropic_api_key") == CANARY
    assert run("get-key", "anthropic_api_key") == (0, "anthropic_api_key: sk-c...6789\n")
    assert run("delete-key", "anthropic_api_key") == (0, "deleted: anthropic_api_key\n")
    assert other_client(service, "lookup", "service", "loom", "username", "anthropic_api_key") == ""
    assert run("delete-key", "anthropic_api_key")[0] == 1


@pytest.mark.anyio
async def test_what_another_client_stored_is_found(service: dict[str, str]) -> None:
    other_client(service, "store", "--label=x", "service", "loom", "username", "mistral_api_key", given=CANARY)
    found = await resolve_key(provider="mistral", keyring_name="mistral_api_key", environ={})
    assert found is not None
    assert (found.secret.reveal(), found.source) == (CANARY, "keyring loom/mistral_api_key")
    other_client(service, "clear", "service", "loom", "username", "mistral_api_key")


def test_several_keys_and_a_document_are_kept_and_listed(service: dict[str, str]) -> None:
    names = [key.name for key in known_keys()][:4]
    document = '{"type": "service_account",\n "private_key": "a\\nb"}\n'
    for name in names:
        assert run("set-key", name, given=CANARY)[0] == 0
    assert run("set-key", "gcp_credentials", given=document)[0] == 0
    assert json.loads(other_client(service, "lookup", "service", "loom", "username", "gcp_credentials")) == json.loads(
        document
    )
    listed = {row["name"]: row for row in json.loads(run("list-keys", "--json")[1])}
    assert {name for name, row in listed.items() if row["in_keyring"]} == {*names, "gcp_credentials"}
    for name in (*names, "gcp_credentials"):
        assert run("delete-key", name)[0] == 0
