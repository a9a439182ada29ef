"""Keys, addresses, settings; schemes and handlers of a plug-in's own."""

from __future__ import annotations

import sys
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import keyring
import pytest
from keyring.errors import KeyringLocked
from models import (
    ANSWER,
    CANARY,
    Keyring,
    answering,
    connected,
    key_sent,
)

from loomstream.auth import Credentials
from loomstream.dialects import Target
from loomstream.endpoint import Endpoint
from loomstream.errors import (
    ConfigError,
    LoomstreamError,
    MissingKey,
    UsageError,
)
from loomstream.events import Event
from loomstream.handler import Handler
from loomstream.messages import Request
from loomstream.model import Model, connect
from loomstream.providers import Profile, Provider, Setting, look_up
from loomstream.providers.table import BY_NAME
from loomstream.testing import Recording, ReplayTransport, text_events
from loomstream.wire import Secret, WireRequest

pytestmark = pytest.mark.usefixtures("no_keys")


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.anyio
class TestKeys:
    async def test_a_missing_key_comes_out_of_the_iteration(self) -> None:
        model, client = connected(answering)
        async with client, model, model.stream("x") as stream:
            with pytest.raises(MissingKey, match=r"LOOM_LLM_OPENAI_API_KEY .*OPENAI_API_KEY.* api_key=") as raised:
                await anext(stream)
        assert raised.value.provider == "openai"
        assert raised.value.partial is not None

    async def test_a_key_that_turns_up_later_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, client = connected(answering)
        async with client, model:
            with pytest.raises(MissingKey):
                await model.complete("x")
            monkeypatch.setenv("OPENAI_API_KEY", CANARY)
            assert (await model.complete("x")).text == "hi"

    async def test_a_locked_keyring_is_named(self) -> None:
        class Locked(Keyring):
            def get_password(self, service: str, username: str) -> str | None:
                del service, username
                raise KeyringLocked

        keyring.set_keyring(Locked("", ""))
        model, client = connected(answering)
        async with client, model:
            with pytest.raises(MissingKey, match="the keyring is locked"):
                await model.complete("x")

    async def test_the_order_of_the_places(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keyring.set_keyring(Keyring("openai_api_key", "from-keyring"))
        assert await key_sent() == "from-keyring"
        monkeypatch.setenv("OPENAI_API_KEY", "from-vendor")
        assert await key_sent() == "from-vendor"
        monkeypatch.setenv("LOOM_LLM_OPENAI_API_KEY", "from-loom")
        assert await key_sent() == "from-loom"
        assert await key_sent(api_key="from-argument") == "from-argument"
        assert await key_sent(api_key=Secret("from-secret")) == "from-secret"

    async def test_the_key_is_looked_up_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "first")
        sent: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            sent.append(request.headers["authorization"])
            return answering(request)

        model, client = connected(answer)
        async with client, model:
            await model.complete("x")
            monkeypatch.setenv("OPENAI_API_KEY", "second")
            await model.complete("x")
        assert sent == ["Bearer first"] * 2

    async def test_a_key_that_is_optional_is_sent_where_there_is_one(self) -> None:
        options = {"spec": "openai-compatible:m", "base_url": "https://host/v1"}
        assert await key_sent(**options) == ""
        assert await key_sent(**options, api_key="mine") == "mine"

    async def test_no_key_goes_to_a_host_that_wants_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        body = b'{"message":{"content":"hi"},"done":true,"done_reason":"stop"}\n'
        headers: list[httpx.Headers] = []

        def answer(request: httpx.Request) -> httpx.Response:
            headers.append(request.headers)
            return httpx.Response(200, content=body, headers={"content-type": "application/x-ndjson"})

        model, client = connected(answer, "ollama")
        async with client, model:
            assert (await model.complete("x")).text == "hi"
        assert "authorization" not in headers[0]
        assert CANARY not in str(headers[0].raw)
        model, client = connected(answer, "ollama", api_key="mine")
        async with client, model:
            await model.complete("x")
        assert headers[1]["authorization"] == "Bearer mine", "it stands behind a gate that wants one"


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.anyio
class TestAddresses:
    @pytest.mark.parametrize(
        ("base_url", "url"),
        [
            ("https://host/v1", "https://host/v1/chat/completions"),
            ("https://host/v1/", "https://host/v1/chat/completions"),
            ("  https://host//  ", "https://host/chat/completions"),
            ("localhost:1234/v1", "http://localhost:1234/v1/chat/completions"),
            ("127.0.0.1:1", "http://127.0.0.1:1/chat/completions"),
        ],
    )
    async def test_a_base_url_is_put_in_order(self, base_url: str, url: str) -> None:
        row = look_up("openai-compatible")
        transport = ReplayTransport(Recording([ANSWER]))
        endpoint = Endpoint(row, "m", base_url=base_url)
        async with Model(endpoint, transport=transport) as model:
            await model.complete("x")
        assert transport.requests[0].url == url

    async def test_the_environment_gives_an_address_and_the_argument_wins(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        row = look_up("openai")
        monkeypatch.setenv("OPENAI_BASE_URL", "https://vendor/v1")
        assert (await Endpoint(row, api_key="k").resolve()).target.base_url == "https://vendor/v1"
        monkeypatch.setenv("LOOM_LLM_OPENAI_BASE_URL", " https://loom/v1 ")
        assert (await Endpoint(row, api_key="k").resolve()).target.base_url == "https://loom/v1"
        assert (await Endpoint(row, api_key="k", base_url="https://mine").resolve()).target.base_url == "https://mine"

    async def test_a_blank_variable_is_not_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", "  ")
        assert (await Endpoint(look_up("openai"), api_key="k").resolve()).target.base_url == "https://api.openai.com/v1"


def test_a_provider_without_an_address_says_how_to_give_one() -> None:
    with pytest.raises(ConfigError, match="base_url='https://host/v1' or set LOOM_LLM_OPENAI_COMPATIBLE_BASE_URL"):
        connect("openai-compatible:m")


def test_a_row_without_variables_says_how_to_give_an_address() -> None:
    with pytest.raises(ConfigError, match=r"pass base_url='https://host/v1'$"):
        Endpoint(Provider(name="acme"))


# --- where values come from ------------------------------------------------------------------------


class TestOrigins:
    def test_of_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ACME_PROJECT", "p")
        monkeypatch.delenv("ACME_REGION", raising=False)
        credentials = Endpoint(REGIONAL, settings={"secret_part": "s"}).credentials()
        names = ("region", "project", "secret_part", "nothing")
        assert [credentials.origin(name) for name in names] == ["row", "environment", "argument", ""]
        assert Endpoint(REGIONAL, settings={"project": "mine"}).credentials().origin("project") == "argument"
        assert Endpoint(REGIONAL, settings={"project": ""}).credentials().origin("project") == "environment"
        assert Endpoint(REGIONAL).credentials().origin("secret_part") == ""

    @pytest.mark.parametrize(("key", "origin"), [(None, ""), ("", ""), ("k", "argument"), (lambda: "k", "argument")])
    def test_of_the_key(self, key: str | Callable[[], str] | None, origin: str) -> None:
        assert Endpoint(REGIONAL, api_key=key).credentials().origin("api_key") == origin


@pytest.mark.anyio
class TestBedrock:
    @pytest.fixture(autouse=True)
    def files(self, no_keys: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        del no_keys
        (tmp_path / "config").write_text("[profile work]\nregion = eu-west-3\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))

    async def test_a_key_that_is_passed_beats_a_profile_of_the_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LOOM_LLM_BEDROCK_PROFILE", "work")
        resolved = await Endpoint(look_up("bedrock"), api_key="k").resolve()
        assert resolved.authenticator.secrets == (Secret("k"),)
        assert resolved.target.base_url == "https://bedrock-runtime.eu-west-3.amazonaws.com"
        assert resolved.target.settings["region"] == "eu-west-3"

    async def test_the_region_that_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        resolved = await Endpoint(look_up("bedrock"), api_key="k").resolve()
        assert resolved.target.base_url == "https://bedrock-runtime.us-west-2.amazonaws.com"
        monkeypatch.setenv("AWS_PROFILE", "work")
        monkeypatch.setenv("AWS_REGION", "sa-east-1")
        resolved = await Endpoint(look_up("bedrock"), api_key="k").resolve()
        assert resolved.target.base_url == "https://bedrock-runtime.sa-east-1.amazonaws.com"


# --- settings --------------------------------------------------------------------------------------

REGIONAL = Provider(
    name="acme",
    base_url="https://{region}.acme.example/v1",
    default_model="m",
    settings=(
        Setting(name="region", environment=("ACME_REGION", "LOOM_ACME_REGION"), default="north"),
        Setting(name="project", environment=("ACME_PROJECT",), required=True, help="the account's project"),
        Setting(name="secret_part", environment=("ACME_SECRET",), keyring="acme_secret"),
    ),
    profiles=(
        Profile(models=("big-*",), quirks={"top_k": True}),
        Profile(models=("claude-*",), dialect="anthropic_messages", quirks={"needs_max_tokens": 7}),
        Profile(settings={"region": "global"}, base_url="https://acme.example/v1"),
    ),
)


async def target_of(model: str = "m", **options: Any) -> Target:  # noqa: ANN401 (those of Endpoint)
    return (await Endpoint(REGIONAL, model, api_key="k", **options).resolve()).target


@pytest.mark.anyio
class TestSettings:
    async def test_they_fill_the_address_and_reach_the_dialect(self) -> None:
        target = await target_of(settings={"project": "p-1", "region": "south"})
        assert target.base_url == "https://south.acme.example/v1"
        assert target.settings == {"region": "south", "project": "p-1"}

    async def test_argument_then_environment_then_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = {"project": "p-1"}
        assert (await target_of(settings=settings)).settings["region"] == "north"
        monkeypatch.setenv("ACME_REGION", " vendor ")
        assert (await target_of(settings=settings)).settings["region"] == "vendor"
        monkeypatch.setenv("LOOM_ACME_REGION", "loom")
        assert (await target_of(settings=settings)).settings["region"] == "loom"
        assert (await target_of(settings={**settings, "region": "mine"})).settings["region"] == "mine"

    @pytest.mark.parametrize("region", ["evil.example/x?", "..", "a b", "x@y", "%2F"])
    async def test_a_value_cannot_name_another_host(self, region: str) -> None:
        with pytest.raises(ConfigError, match="the setting 'region' of acme cannot be"):
            await target_of(settings={"project": "p", "region": region})

    async def test_what_is_missing_is_named_with_where_to_set_it(self) -> None:
        words = (
            r"acme needs the setting project \(the account's project\): "
            r"pass settings=\{'project': '…'\} or set ACME_PROJECT"
        )
        with pytest.raises(ConfigError, match=words):
            await target_of()

    async def test_an_own_address_needs_no_setting_of_the_address(self) -> None:
        target = await target_of(settings={"project": "p"}, base_url="https://proxy.example")
        assert target.base_url == "https://proxy.example"

    async def test_an_address_that_names_no_setting_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="names 'zone', which is none of its settings"):
            await target_of(settings={"project": "p"}, base_url="https://{zone}.example")
        with pytest.raises(ConfigError, match="is no template"):
            await target_of(settings={"project": "p"}, base_url="https://{region.example")

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"regoin": "x"}, "acme has no setting 'regoin': did you mean 'region'"),
            ({"zzz": "x"}, "acme has no setting 'zzz': it has region, project, secret_part"),
            ({"region": 5}, "the setting 'region' of acme is an int: give a text"),
        ],
    )
    async def test_an_unusable_setting_is_refused_at_once(self, settings: dict[str, str], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            Endpoint(REGIONAL, "m", settings=settings)

    async def test_a_secret_setting_is_given_to_the_scheme_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        endpoint = Endpoint(REGIONAL, "m", api_key="k", settings={"project": "p", "secret_part": CANARY})
        target, _ = await endpoint.resolve()
        assert "secret_part" not in target.settings
        assert CANARY not in repr(target)
        assert await endpoint.credentials().secret("secret_part") == Secret(CANARY)
        monkeypatch.setenv("ACME_SECRET", "from-environment")
        assert await Endpoint(REGIONAL, "m").credentials().secret("secret_part") == Secret("from-environment")
        monkeypatch.delenv("ACME_SECRET")
        keyring.set_keyring(Keyring("acme_secret", "from-keyring"))
        assert await Endpoint(REGIONAL, "m").credentials().secret("secret_part") == Secret("from-keyring")

    @pytest.mark.parametrize("spec", ["bedrock:m", "nobody:m"])
    def test_no_frame_of_a_failed_connect_shows_a_setting(self, spec: str) -> None:
        with pytest.raises(LoomstreamError) as raised:
            connect(spec, settings={"secret_access_key": CANARY, "regionn": "x"})
        report = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
        library = [frame for frame in report.stack if "loomstream" in frame.filename and "tests" not in frame.filename]
        assert library
        assert CANARY not in str([frame.locals for frame in library])

    async def test_settings_are_a_mapping(self) -> None:
        with pytest.raises(UsageError, match="settings is a list: give a dict"):
            connect("bedrock:m", settings=["region"])  # type: ignore[arg-type]

    async def test_profiles_are_laid_over_the_row(self) -> None:
        settings = {"project": "p"}
        assert not (await target_of(settings=settings)).quirks.top_k
        assert (await target_of("big-1", settings=settings)).quirks.top_k
        everywhere = await target_of("big-1", settings={**settings, "region": "global"})
        assert (everywhere.base_url, everywhere.quirks.top_k) == ("https://acme.example/v1", True)

    async def test_a_dialect_is_the_models_or_the_one_selected(self) -> None:
        assert Endpoint(REGIONAL, "m").route.dialect == "openai_chat"
        assert Endpoint(REGIONAL, "claude-1").route.dialect == "anthropic_messages"
        assert Endpoint(REGIONAL, "claude-1", dialect="openai_chat").route.quirks.needs_max_tokens is None
        selected = Endpoint(REGIONAL, "m", dialect="anthropic_messages").route
        assert (selected.dialect, selected.quirks.needs_max_tokens) == ("anthropic_messages", 7)
        with pytest.raises(ConfigError, match="acme does not speak 'ollama_chat': it speaks openai_chat, anthropic_me"):
            Endpoint(REGIONAL, "m", dialect="ollama_chat")

    async def test_a_profile_with_an_unknown_quirk_is_refused(self) -> None:
        row = Provider(name="acme", base_url="https://x", profiles=(Profile(quirks={"no_such": 1}),))
        with pytest.raises(ConfigError, match="a profile of acme names an unknown quirk"):
            Endpoint(row, "m")


# --- tokens from a function ------------------------------------------------------------------------


@pytest.mark.anyio
class TestTokenFunctions:
    async def test_it_is_asked_for_each_request(self) -> None:
        tokens = iter(["t-1", "t-2", "t-3"])
        seen: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(request.headers["authorization"])
            return answering(request)

        model, client = connected(answer, api_key=lambda: next(tokens))
        async with client, model:
            await model.complete("x")
            await model.complete("x")
        assert seen == ["Bearer t-2", "Bearer t-3"]

    async def test_it_may_be_asynchronous(self) -> None:
        async def token() -> str:
            await anyio.lowlevel.checkpoint()
            return "t-1"

        assert await key_sent(api_key=token) == "t-1"

    @pytest.mark.parametrize(
        ("token", "words"),
        [
            (lambda: 1 / 0, "raised ZeroDivisionError: it must give a token"),
            (lambda: "", "gave an empty token"),
            (lambda: 5, "must be a string, not int"),
        ],
    )
    async def test_one_that_gives_no_token_is_a_config_error(self, token: Callable[[], str], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            await key_sent(api_key=token)


# --- schemes of a plug-in's own --------------------------------------------------------------------


class Clumsy:
    """An authenticator that fails where it is told to."""

    secrets: tuple[Secret, ...] = ()
    discovered: dict[str, str] = {}  # noqa: RUF012 (a fake)

    def __init__(self, place: str) -> None:
        self._place = place

    def _fail_in(self, place: str) -> None:
        if place == self._place:
            raise KeyError(place)

    async def prepare(self) -> None:
        self._fail_in("prepare")

    async def authorize(self, wire_request: WireRequest) -> WireRequest:
        self._fail_in("authorize")
        return wire_request

    async def renew(self, sent: tuple[Secret, ...] = ()) -> bool:
        del sent
        return False

    async def aclose(self) -> None:
        self._fail_in("aclose")


@pytest.mark.anyio
@pytest.mark.parametrize("place", ["prepare", "authorize", "aclose"])
async def test_what_a_scheme_of_a_plug_in_raises_is_typed(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("acme_auth")
    module.make = lambda credentials: Clumsy(place)  # type: ignore[attr-defined]  # noqa: ARG005 (a scheme's signature)
    monkeypatch.setitem(sys.modules, "acme_auth", module)
    row = Provider(name="acme", base_url="https://x.example", auth="acme_auth:make")
    model = Model(Endpoint(row, "m"), transport=ReplayTransport(Recording([ANSWER])))
    with pytest.raises(ConfigError, match="the authentication scheme 'acme_auth:make' of acme raised KeyError"):
        async with model:
            await model.complete("x")


# --- a provider without HTTP -----------------------------------------------------------------------


@pytest.mark.anyio
class TestOwnHandlers:
    def row(self, monkeypatch: pytest.MonkeyPatch, make: object) -> None:
        module = ModuleType("acme_handler")
        module.make = make  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "acme_handler", module)
        monkeypatch.setitem(BY_NAME, "acme", Provider(name="acme", handler="acme_handler:make", auth="none"))

    async def test_its_function_makes_the_handler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[tuple[str, str]] = []

        def make(model: str, credentials: Credentials) -> Handler:
            made.append((model, credentials.provider))
            return lambda request: aclosing(speak(request))

        async def speak(request: Request) -> AsyncGenerator[Event]:
            del request
            for event in text_events("hi"):
                await anyio.lowlevel.checkpoint()
                yield event

        self.row(monkeypatch, make)
        async with connect("acme:m-1") as model:
            await model.prepare()
            assert (await model.complete("x")).text == "hi"
        assert made == [("m-1", "acme")]
        with pytest.raises(UsageError, match="this model is closed"):
            model.stream("x")

    async def test_what_it_gives_is_a_handler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.row(monkeypatch, lambda model, credentials: None)  # noqa: ARG005 (its signature)
        with pytest.raises(ConfigError, match="acme_handler:make gave None, no handler"):
            connect("acme:m-1")

    async def test_what_it_raises_is_typed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def make(model: str, credentials: object) -> Handler:
            raise ValueError(model, credentials)

        self.row(monkeypatch, make)
        with pytest.raises(ConfigError, match="acme cannot be started: its handler raised ValueError"):
            connect("acme:m-1")
