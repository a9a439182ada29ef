"""Writing, reading and deleting entries of a keyring, and what is said where there is none."""

import threading
from collections.abc import Callable, Iterator

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError, PasswordSetError

from loomstream.config.keyring_store import backend, delete_key, get_key, set_key
from loomstream.errors import ConfigError
from loomstream.wire import Secret

CANARY = "sk-canary-0123456789abcdef"


class Memory(KeyringBackend):
    """Keeps entries in memory; `fail` is raised by what writes."""

    priority = -1  # pyright: ignore[reportAssignmentType]

    def __init__(self, fail: BaseException | None = None) -> None:
        self.entries: dict[tuple[str, str], str] = {}
        self.fail = fail

    def get_password(self, service: str, username: str) -> str | None:
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.fail is not None:
            raise self.fail
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.fail is not None:
            raise self.fail
        del self.entries[service, username]


class Ending(Memory):
    """Ends the program, wherever it is asked."""

    def get_password(self, service: str, username: str) -> str | None:
        raise self.fail or KeyError(service, username)


class Forgetful(Memory):
    """Takes a value and keeps only a part of it."""

    def set_password(self, service: str, username: str, password: str) -> None:
        super().set_password(service, username, password[:8])


class Hanging(Memory):
    """Answers once it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def get_password(self, service: str, username: str) -> str | None:
        self.released.wait()
        return super().get_password(service, username)

    set_password = delete_password = lambda self, *_: self.released.wait()  # pyright: ignore[reportAssignmentType]


Install = Callable[[KeyringBackend], KeyringBackend]


@pytest.fixture
def install() -> Iterator[Install]:
    before = keyring.get_keyring()

    def use(backend: KeyringBackend) -> KeyringBackend:
        keyring.set_keyring(backend)
        return backend

    yield use
    keyring.set_keyring(before)


def living_in(module: str) -> Memory:
    return type("Keyring", (Memory,), {"__module__": module})()


def test_what_is_set_is_given_back_and_deleted(install: Install) -> None:
    kept = install(Memory())
    assert set_key("a_key", Secret(CANARY)) == f"{__name__}.Memory"
    assert kept.entries == {("loom", "a_key"): CANARY}  # pyright: ignore[reportAttributeAccessIssue]
    assert get_key("a_key") == Secret(CANARY)
    assert delete_key("a_key") is True
    assert delete_key("a_key") is False
    assert get_key("a_key") is None


@pytest.mark.parametrize("error", [SystemExit(CANARY), KeyboardInterrupt(CANARY), GeneratorExit(CANARY)], ids=repr)
@pytest.mark.parametrize("kind", [Ending, Memory])
def test_a_keyring_that_would_end_the_program_is_one_that_cannot_be_used(
    kind: type[Memory], error: BaseException, install: Install, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = install(kind(error))
    kept.entries["loom", "a_key"] = CANARY  # pyright: ignore[reportAttributeAccessIssue]
    for act in (lambda: set_key("a_key", Secret(CANARY)), lambda: delete_key("a_key")):
        with pytest.raises(ConfigError, match=f"cannot be used: .*{type(error).__name__}") as caught:
            act()
        assert CANARY not in str(caught.value)
    if kind is Ending:
        with pytest.raises(ConfigError, match=f"could not be read: {type(error).__name__}"):
            get_key("a_key")
    assert CANARY not in "".join(capfd.readouterr())


def test_nothing_is_not_stored(install: Install) -> None:
    install(Memory())
    with pytest.raises(ConfigError, match="the value of a_key is empty"):
        set_key("a_key", Secret(""))


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("keyring.backends.fail", "there is none on this machine"),
        ("keyring.backends.null", "there is none on this machine"),
        ("keyrings.alt.file", "keyrings.alt.file.Keyring keeps keys in plain text and is not used"),
    ],
)
def test_without_a_keyring_there_is_an_explanation_and_nothing_is_stored(
    module: str, why: str, install: Install
) -> None:
    kept = install(living_in(module))
    stored = "Nothing is stored in plain text: set the variable LOOM_LLM_A_API_KEY in its place"
    deleted = "Nothing was deleted: where the variable LOOM_LLM_A_API_KEY is set, unset it"
    for act, instead in (
        (lambda: set_key("a_key", Secret(CANARY), variable="LOOM_LLM_A_API_KEY"), stored),
        (lambda: get_key("a_key", variable="LOOM_LLM_A_API_KEY"), stored),
        (lambda: delete_key("a_key", variable="LOOM_LLM_A_API_KEY"), deleted),
    ):
        with pytest.raises(ConfigError) as caught:
            act()
        assert why in str(caught.value)
        assert instead in str(caught.value)
        assert CANARY not in str(caught.value)
    assert kept.entries == {}  # pyright: ignore[reportAttributeAccessIssue]
    assert backend().name == ""


def test_a_chain_writes_to_its_first_link_that_keeps_keys_well(install: Install) -> None:
    chain, plain, refusing, good = (
        living_in("keyring.backends.chainer"),
        living_in("keyrings.alt.file"),
        Memory(),
        Memory(),
    )
    refusing.fail = PasswordSetError(CANARY)
    chain.backends = [plain, refusing, good]  # pyright: ignore[reportAttributeAccessIssue]
    install(chain)
    set_key("a_key", Secret(CANARY))
    assert (plain.entries, refusing.entries) == ({}, {})
    assert good.entries == {("loom", "a_key"): CANARY}


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        (Memory(PasswordSetError(CANARY)), "refused the value: PasswordSetError"),
        (Memory(OSError(CANARY)), "refused the value: OSError"),
        (Forgetful(), "it gives back another value than it was given"),
    ],
)
def test_a_refusal_is_told_without_the_key(kept: Memory, why: str, install: Install) -> None:
    install(kept)
    with pytest.raises(ConfigError) as caught:
        set_key("a_key", Secret(CANARY))
    assert why in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_keyring_that_gives_no_text(install: Install) -> None:
    kept = Memory()
    kept.entries["loom", "openai_api_key"] = CANARY.encode()  # type: ignore[assignment]
    install(kept)
    with pytest.raises(ConfigError, match="gave no text") as caught:
        get_key("openai_api_key")
    assert CANARY not in str(caught.value)


def test_a_keyring_that_does_not_delete(install: Install) -> None:
    kept = install(Memory())
    set_key("a_key", Secret(CANARY))
    kept.fail = PasswordDeleteError(CANARY)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match="did not delete it: PasswordDeleteError"):
        delete_key("a_key")


def test_a_keyring_that_hangs_is_given_up(install: Install) -> None:
    kept = Hanging()
    install(kept)
    try:
        with pytest.raises(ConfigError, match=r"the keyring did not answer within 0.01 s"):
            set_key("a_key", Secret(CANARY), timeout_s=0.01)
        with pytest.raises(ConfigError, match="the keyring does not answer"):
            get_key("a_key", timeout_s=1000)
    finally:
        kept.released.set()
        for thread in threading.enumerate():
            if thread.name.startswith("keyring "):
                thread.join()
