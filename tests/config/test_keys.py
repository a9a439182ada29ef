import base64
import pickle
import threading
import traceback
from collections.abc import Iterator

import anyio
import keyring
import msgspec
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, NoKeyringError

from loomstream.config.keys import ResolvedKey, missing_key, resolve_key, resolve_key_sync
from loomstream.errors import ConfigError, LoomstreamError, MissingKey
from loomstream.wire import Secret

CANARY = "sk-canary-4711"
ENV_NAMES = ("OPENAI_API_KEY", "LOOM_LLM_OPENAI_API_KEY")
ALL_SET = {"LOOM_LLM_OPENAI_API_KEY": "from-loom", "OPENAI_API_KEY": "from-vendor"}


class FakeKeyring(KeyringBackend):
    """Holds entries in memory; `asked` lists what was looked for. Never chosen by the keyring package itself."""

    priority = -1  # pyright: ignore[reportAssignmentType]

    def __init__(self, **entries: str) -> None:
        self.entries = entries
        self.asked: list[tuple[str, str]] = []

    def get_password(self, service: str, username: str) -> str | None:
        self.asked.append((service, username))
        return self.entries.get(username)

    def set_password(self, service: str, username: str, password: str) -> None:  # noqa: ARG002 (the backend's signature)
        self.entries[username] = password


class BrokenKeyring(FakeKeyring):
    """Raises what it is given."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def get_password(self, service: str, username: str) -> str | None:  # noqa: ARG002 (the backend's signature)
        raise self.error


class HangingKeyring(FakeKeyring):
    """Answers only once it is released."""

    def __init__(self) -> None:
        super().__init__(openai_api_key=CANARY)
        self.released = threading.Event()

    def get_password(self, service: str, username: str) -> str | None:
        self.released.wait()
        return super().get_password(service, username)


def living_in(module: str, base: type[FakeKeyring] = FakeKeyring) -> type[FakeKeyring]:
    """Give a backend class that says it is defined in another module."""
    return type("PlaintextKeyring", (base,), {"__module__": module})


class Installed:
    """The process's keyring; `install` sets another one."""

    def install(self, backend: FakeKeyring) -> FakeKeyring:
        keyring.set_keyring(backend)
        return backend


@pytest.fixture(autouse=True)
def system() -> Iterator[Installed]:
    before = keyring.get_keyring()
    installed = Installed()
    installed.install(FakeKeyring())
    yield installed
    keyring.set_keyring(before)


@pytest.fixture
def hanging(system: Installed) -> Iterator[HangingKeyring]:
    backend = HangingKeyring()
    system.install(backend)
    yield backend
    backend.released.set()
    for thread in threading.enumerate():
        if thread.name.startswith("keyring ") and thread.ident is not None:  # one may be cancelled before it starts
            thread.join()


def resolve(
    argument: str | Secret | None = None,
    environ: dict[str, str] | None = None,
    notes: list[str] | None = None,
    timeout_s: float = 5.0,
) -> ResolvedKey | None:
    return resolve_key_sync(
        provider="openai",
        argument=argument,
        env_names=ENV_NAMES,
        keyring_name="openai_api_key",
        environ=environ or {},
        notes=notes,
        timeout_s=timeout_s,
    )


def told(found: ResolvedKey | None) -> tuple[str, str] | None:
    return None if found is None else (found.secret.reveal(), found.source)


def test_the_argument_comes_first(system: Installed) -> None:
    backend = system.install(FakeKeyring(openai_api_key="from-keyring"))
    assert told(resolve("given", ALL_SET)) == ("given", "argument")
    assert told(resolve(Secret("given"), ALL_SET)) == ("given", "argument")
    assert backend.asked == []


def test_then_our_variable_then_the_vendor_s_then_the_keyring(system: Installed) -> None:
    backend = system.install(FakeKeyring(openai_api_key="from-keyring"))
    assert told(resolve(None, ALL_SET)) == ("from-loom", "environment LOOM_LLM_OPENAI_API_KEY")
    assert told(resolve(None, {"OPENAI_API_KEY": "from-vendor"})) == ("from-vendor", "environment OPENAI_API_KEY")
    assert backend.asked == []
    assert told(resolve()) == ("from-keyring", "keyring loom/openai_api_key")
    assert backend.asked == [("loom", "openai_api_key")]


def test_nothing_anywhere_is_none() -> None:
    assert resolve() is None
    assert resolve_key_sync(provider="local") is None


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_LLM_TEST_API_KEY", CANARY)
    found = resolve_key_sync(provider="test", env_names=["LOOM_LLM_TEST_API_KEY"])
    assert told(found) == (CANARY, "environment LOOM_LLM_TEST_API_KEY")


@pytest.mark.parametrize("empty", ["", " ", "\n", "\r\n\t"])
def test_empty_counts_as_not_set(empty: str, system: Installed) -> None:
    system.install(FakeKeyring(openai_api_key=empty))
    variables = {"LOOM_LLM_OPENAI_API_KEY": empty, "OPENAI_API_KEY": "from-vendor"}
    assert told(resolve(empty, variables)) == ("from-vendor", "environment OPENAI_API_KEY")
    assert resolve(Secret(empty)) is None


def test_white_space_around_a_key_is_dropped() -> None:
    assert told(resolve(f"  {CANARY}\r\n")) == (CANARY, "argument")
    assert told(resolve(None, {"OPENAI_API_KEY": f"{CANARY}\n"})) == (CANARY, "environment OPENAI_API_KEY")


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        (f"{CANARY}\nx-evil: 1", "a control character at position 15"),
        (f"{CANARY}\x00", "a control character at position 15"),
        (f"\x7f{CANARY}", "a control character at position 1"),
        (f"“{CANARY}”", "a character that is not ASCII at position 1"),
        (f"\ufeff{CANARY}", "a character that is not ASCII at position 1"),
        (f"{CANARY}\udce9", "a character that is not ASCII at position 15"),
    ],
)
def test_a_key_that_no_header_can_carry_is_refused_unseen(spoiled: str, said: str, system: Installed) -> None:
    system.install(FakeKeyring(openai_api_key=spoiled))
    for arguments, source in (
        ((spoiled, {}), "(argument)"),
        ((None, {"OPENAI_API_KEY": spoiled}), "(environment OPENAI_API_KEY)"),
        ((None, {}), "(keyring loom/openai_api_key)"),
    ):
        with pytest.raises(ConfigError) as caught:
            resolve(*arguments)
        assert said in str(caught.value)
        assert source in str(caught.value)
        assert_unseen(caught.value)


def assert_unseen(error: BaseException) -> None:
    assert CANARY not in "".join(traceback.format_exception(error))
    assert CANARY not in repr(error)
    while error is not None:
        assert CANARY not in repr(vars(error))
        assert CANARY.encode() not in bytes(getattr(error, "object", b""))
        error = error.__cause__ or error.__context__  # pyright: ignore[reportAssignmentType]


def test_a_key_of_another_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be a string, not bytes"):
        resolve(CANARY.encode())  # pyright: ignore[reportArgumentType]


def test_a_found_key_shows_nothing_of_itself() -> None:
    found = resolve(CANARY)
    assert found is not None
    for shown in (repr(found), str(found), f"{found}", f"{found.secret:>40}", repr({"key": found})):
        assert CANARY not in shown
    with pytest.raises(TypeError):
        pickle.dumps(found)
    with pytest.raises(TypeError):
        msgspec.json.encode(found)


@pytest.mark.parametrize(
    "wrapped",
    [
        "go-keyring-encoded:" + CANARY.encode().hex(),
        "go-keyring-base64:" + base64.b64encode(CANARY.encode()).decode(),
    ],
)
def test_values_stored_by_go_keyring_are_unwrapped(wrapped: str, system: Installed) -> None:
    system.install(FakeKeyring(openai_api_key=wrapped))
    assert told(resolve()) == (CANARY, "keyring loom/openai_api_key")


@pytest.mark.parametrize(
    "wrapped",
    [
        f"go-keyring-encoded:{CANARY}",
        f"go-keyring-base64:{CANARY}!",
        "go-keyring-encoded:" + (CANARY.encode() + b"\xff").hex(),
    ],
)
def test_what_cannot_be_unwrapped_is_refused_unseen(wrapped: str, system: Installed) -> None:
    system.install(FakeKeyring(openai_api_key=wrapped))
    with pytest.raises(ConfigError, match=r"keyring loom/openai_api_key.*set it again") as caught:
        resolve()
    assert_unseen(caught.value)


def test_no_keyring_at_all_is_simply_not_set(system: Installed) -> None:
    notes: list[str] = []
    for backend in (
        BrokenKeyring(NoKeyringError("none")),
        living_in("keyring.backends.null")(openai_api_key=CANARY),
        living_in("keyring.backends.fail")(openai_api_key=CANARY),
    ):
        system.install(backend)
        assert resolve(notes=notes) is None
    assert notes == []


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (KeyringLocked(CANARY), "the keyring is locked"),
        (OSError(CANARY), "the keyring could not be read: OSError"),
        (RuntimeError(CANARY), "the keyring could not be read: RuntimeError"),
    ],
)
def test_a_keyring_that_fails_is_not_set_and_noted(error: Exception, note: str, system: Installed) -> None:
    notes: list[str] = []
    system.install(BrokenKeyring(error))
    assert resolve(notes=notes) is None
    assert resolve() is None
    assert notes == [note]


def test_a_keyring_in_plain_text_is_not_asked(system: Installed) -> None:
    notes: list[str] = []
    backend = system.install(living_in("keyrings.alt.file")(openai_api_key=CANARY))
    assert resolve(notes=notes) is None
    assert backend.asked == []
    assert notes == ["the keyring keyrings.alt.file.PlaintextKeyring keeps keys in plain text and is not used"]


def test_a_chain_is_asked_without_its_plain_text_links(system: Installed) -> None:
    plain = living_in("keyrings.alt.file")(openai_api_key="plain")
    chain = living_in("keyring.backends.chainer")()
    chain.backends = [plain, BrokenKeyring(KeyringLocked()), FakeKeyring(), FakeKeyring(openai_api_key=CANARY)]
    system.install(chain)
    assert told(resolve()) == (CANARY, "keyring loom/openai_api_key")
    assert plain.asked == []


def test_a_keyring_that_hangs_is_given_up_once(hanging: HangingKeyring) -> None:
    notes: list[str] = []
    assert resolve(notes=notes, timeout_s=0.01) is None
    assert resolve(notes=notes, timeout_s=1000.0) is None
    assert notes == ["the keyring did not answer within 0.01 s", "the keyring does not answer"]
    assert hanging.asked == []


def test_a_keyring_that_answers_again_is_asked_again(hanging: HangingKeyring) -> None:
    assert resolve(timeout_s=0.01) is None
    hanging.released.set()
    for thread in threading.enumerate():
        if thread.name.startswith("keyring "):
            thread.join()
    assert told(resolve()) == (CANARY, "keyring loom/openai_api_key")


@pytest.mark.usefixtures("hanging")
def test_a_hanging_keyring_does_not_keep_the_process_alive() -> None:
    resolve(timeout_s=0.01)
    waiting = [thread for thread in threading.enumerate() if thread.name == "keyring loom/openai_api_key"]
    assert [thread.daemon for thread in waiting] == [True]


@pytest.mark.anyio
async def test_the_async_form_finds_the_same(system: Installed) -> None:
    system.install(FakeKeyring(openai_api_key="from-keyring"))
    names = {"provider": "openai", "env_names": ENV_NAMES, "keyring_name": "openai_api_key"}
    assert told(await resolve_key(**names, argument="given", environ=ALL_SET)) == ("given", "argument")
    assert told(await resolve_key(**names, environ=ALL_SET)) == ("from-loom", "environment LOOM_LLM_OPENAI_API_KEY")
    assert told(await resolve_key(**names, environ={})) == ("from-keyring", "keyring loom/openai_api_key")
    assert await resolve_key(provider="local", environ={}) is None


@pytest.mark.anyio
async def test_the_event_loop_goes_on_while_the_keyring_is_asked(hanging: HangingKeyring) -> None:
    found: list[ResolvedKey | None] = []

    async def look() -> None:
        found.append(await resolve_key(provider="openai", keyring_name="openai_api_key", environ={}))

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        await anyio.wait_all_tasks_blocked()
        assert found == []
        hanging.released.set()
    assert [told(key) for key in found] == [(CANARY, "keyring loom/openai_api_key")]


@pytest.mark.anyio
async def test_a_cancelled_look_up_does_not_wait_for_the_keyring(hanging: HangingKeyring) -> None:
    async with anyio.create_task_group() as group:

        async def look() -> None:
            await resolve_key(provider="openai", keyring_name="openai_api_key", environ={}, timeout_s=1000.0)

        group.start_soon(look)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert hanging.asked == []
    hanging.released.set()


@pytest.mark.anyio
async def test_the_async_form_notes_what_went_wrong(system: Installed) -> None:
    notes: list[str] = []
    system.install(BrokenKeyring(KeyringLocked()))
    assert await resolve_key(provider="openai", keyring_name="openai_api_key", environ={}, notes=notes) is None
    assert notes == ["the keyring is locked"]


def test_the_missing_key_says_every_way_to_set_it() -> None:
    error = missing_key("openai", ENV_NAMES, "openai_api_key")
    assert isinstance(error, MissingKey)
    assert isinstance(error, LoomstreamError)
    assert error.provider == "openai"
    assert str(error) == (
        "no API key for openai: set LOOM_LLM_OPENAI_API_KEY (or OPENAI_API_KEY), "
        "run `looms config set-key openai_api_key` or pass api_key=…"
    )


def test_the_missing_key_says_why_the_keyring_gave_none() -> None:
    error = missing_key("openai", ENV_NAMES[1:], "", ["the keyring is locked"])
    assert str(error) == (
        "no API key for openai: set LOOM_LLM_OPENAI_API_KEY or pass api_key=… (the keyring is locked)"
    )
    assert str(missing_key("mine")) == "no API key for mine: pass api_key=…"
