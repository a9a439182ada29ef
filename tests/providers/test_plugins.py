"""Plug-ins: rows, dialects and handlers of installed packages; none breaks another."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

import loomstream
from loomstream.config.load import load
from loomstream.dialects import Quirks
from loomstream.errors import ConfigError, LoomstreamError, MiddlewareError, ServerFault, UnknownProvider
from loomstream.events import Event, TextDelta
from loomstream.model import connect
from loomstream.providers import (
    Provider,
    all_providers,
    dialect_module,
    dialect_names,
    framing,
    is_known,
    known_names,
    listing,
    look_up,
    plugins,
    route,
)
from loomstream.providers.table import TABLE
from loomstream.testing import Recording, ReplayTransport, replay_model
from loomstream.wire import WireRequest
from tests.providers.conftest import Install

ROWS = """
from loomstream.dialects import Quirks
from loomstream.providers import Provider

row = Provider(name="acme", base_url="https://api.acme.test/v1", quirks=Quirks(done_marker=True), aliases=("acme-ai",))
shadow = Provider(name="openai", base_url="https://evil.test/v1")
not_a_row = {"name": "acme"}
wrong_auth = Provider(name="acme", auth="basic")
wrong_dialect = Provider(name="acme", dialect="acme_chat")
wrong_type = Provider(name="acme", key_environment="ACME_API_KEY")
wrong_aliases = Provider(name="acme", aliases=3)
"""
ANSWER = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n'


def error_of(name: str) -> str:
    (found,) = [listed for listed in listing() if listed.name == name and listed.error]
    assert found.row is None
    return found.error


# --- rows ----------------------------------------------------------------------------------------


def test_a_package_can_add_a_provider(install: Install) -> None:
    install("acme_rows_a", ROWS, "acme = acme_rows_a:row", "acme-ai = acme_rows_a:row")
    row = look_up("acme")
    assert row.quirks == Quirks(done_marker=True)
    assert look_up("acme-ai") == row
    assert all_providers() == (*TABLE, row)
    assert known_names()[-2:] == ("acme", "acme-ai")
    assert is_known("acme")
    (listed,) = [listed for listed in listing() if listed.name == "acme"]
    assert (listed.origin, listed.row, listed.error) == ("package acme_rows_a", row, "")
    assert TextDelta(0, "a") in list(loomstream.decode("acme", ANSWER, model="m"))


def test_a_package_cannot_take_the_place_of_a_row_of_the_table(install: Install) -> None:
    install("acme_rows_b", ROWS, "openai = acme_rows_b:shadow")
    assert look_up("openai").base_url == "https://api.openai.com/v1"
    assert all_providers() == TABLE
    assert error_of("openai") == "not used: 'openai' is taken (built in); give it another name"


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("acme_rows_c:not_a_row", "gives a dict, no Provider"),
        ("acme_rows_c:wrong_auth", "auth"),
        ("acme_rows_c:wrong_dialect", "unknown dialect 'acme_chat'"),
        ("acme_rows_c:wrong_type", "key_environment"),
        ("acme_rows_c:wrong_aliases", "aliases"),
        ("acme_rows_c:shadow", "gives a row called 'openai': the entry point must have the row's name"),
        ("acme_rows_c:missing", "cannot be loaded .*AttributeError"),
        ("no_such_module_anywhere:row", "cannot be loaded .*ModuleNotFoundError"),
    ],
)
def test_a_bad_entry_point_breaks_itself_alone(install: Install, target: str, what: str) -> None:
    install("acme_rows_c", ROWS, f"acme = {target}", "good = acme_rows_c:good")
    with pytest.raises(ConfigError, match=f"entry point 'acme' of package acme_rows_c .*{what}"):
        look_up("acme")
    assert look_up("openai").name == "openai"
    assert all_providers() == TABLE
    assert "the entry point 'acme' of package acme_rows_c" in error_of("acme")


@pytest.mark.parametrize("end", ["raise RuntimeError('boom')", "raise SystemExit(3)", "import no_such_module_anywhere"])
def test_code_that_fails_when_it_is_imported_is_a_config_error(install: Install, end: str) -> None:
    module = f"acme_fails_{abs(hash(end))}"
    install(module, end, f"acme = {module}:row")
    with pytest.raises(ConfigError, match=r"cannot be loaded .*: repair or uninstall it"):
        look_up("acme")
    assert error_of("acme")


@pytest.mark.parametrize("end", ["GeneratorExit", "type('Odd', (BaseException,), {})('x')", "SystemExit(3)"])
def test_no_end_of_a_module_breaks_the_listings(install: Install, end: str) -> None:
    module = f"acme_end_{abs(hash(end))}"
    install(module, f"raise {end}", f"acme = {module}:row", dialects=(f"acme_lines = {module}",))
    assert "cannot be loaded" in error_of("acme")
    assert all_providers() == TABLE
    with pytest.raises(ConfigError, match="cannot be loaded"):
        look_up("acme")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        dialect_module("acme_lines")


def test_an_interrupt_is_the_user_s(install: Install) -> None:
    install("acme_interrupt", "raise KeyboardInterrupt", "acme = acme_interrupt:row")
    with pytest.raises(KeyboardInterrupt):
        listing()


def test_an_interrupt_while_a_row_is_checked_is_the_user_s_too(install: Install) -> None:
    row = "Provider(name='acme', base_url='https://a.test', dialect='acme_slow')"
    source = f"from loomstream.providers import Provider\nrow = {row}"
    install("acme_patient", source, "acme = acme_patient:row")
    install("acme_slow", "raise KeyboardInterrupt", dialects=("acme_slow = acme_slow",))
    with pytest.raises(KeyboardInterrupt):
        look_up("acme")


def test_an_entry_that_gives_nothing_says_so(install: Install) -> None:
    install(
        "acme_nothing", "row = None\nlines = None", "acme = acme_nothing:row", dialects=("lines = acme_nothing:lines",)
    )
    assert error_of("acme").endswith("gives None, no Provider")
    with pytest.raises(ConfigError, match="lacks build_request"):
        dialect_module("lines")


ODD_ROWS = """
from types import MappingProxyType
from loomstream.dialects import Quirks
from loomstream.providers import Profile, Provider, Setting

HEADERS = MappingProxyType({"x-a": "{region}"})
REGION = (Setting(name="region", default="eu"), Setting(name="hidden", keyring="acme_hidden"))

def row(**fields):
    return Provider(name="acme", **{"base_url": "https://a.test", "settings": REGION, **fields})

address = row(base_url="https://{nope}.test")
hidden = row(base_url="https://{hidden}.test")
profile_address = row(profiles=(Profile(base_url="https://{region.x}.test"),))
path = row(quirks=Quirks(path="/{nope}"))
wrong_path = row(quirks=Quirks(path=5))
header = row(quirks=Quirks(headers={"x-a": "{0}"}))
number = row(quirks=Quirks(tool_id_chars=-1))
profile = row(profiles=(Profile(quirks={"path": 5}),))
profile_number = row(profiles=(Profile(quirks={"needs_max_tokens": -5}),))
profile_path = row(profiles=(Profile(quirks={"path": "/{"}),))
unknown = row(profiles=(Profile(quirks={"pathh": "/"}),))
thing = row(profiles=(Profile(quirks={"path": object()}),))
good = row(
    base_url="https://{region}.test",
    profiles=(Profile(quirks=MappingProxyType({"headers": HEADERS, "refused": ("stop",)})),),
)

class Odd:
    @property
    def __class__(self):
        raise RuntimeError("class")

odd = Odd()
"""


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("address", "'https://{nope}.test' names 'nope': only region can stand there"),
        ("hidden", "names 'hidden': only region can stand there"),
        ("profile_address", "is no template"),
        ("path", "'/{nope}' names 'nope': only model, region can stand there"),
        ("wrong_path", "Expected `str`, got `int` - at `$.quirks.path`"),
        ("header", "'{0}' is no template"),
        ("number", "Expected `int` >= 1 - at `$.quirks.tool_id_chars`"),
        ("profile", "a quirk in a profile of acme is wrong: Expected `str`, got `int` - at `path`"),
        ("profile_number", "Expected `int` >= 1 - at `needs_max_tokens`"),
        ("profile_path", "'/{' is no template"),
        ("unknown", "a profile of acme names an unknown quirk: 'pathh'"),
        ("thing", "an object has no place in a row"),
        ("odd", "gives an Odd, no Provider"),
    ],
)
def test_a_row_with_a_mistake_inside_is_refused_where_it_is_looked_up(install: Install, name: str, what: str) -> None:
    install(f"acme_odd_{name}", ODD_ROWS, f"acme = acme_odd_{name}:{name}")
    assert what in error_of("acme")


def test_a_row_may_hold_read_only_mappings(install: Install) -> None:
    install("acme_odd_good", ODD_ROWS, "acme = acme_odd_good:good")
    quirks = route(look_up("acme"), "m").quirks
    assert (quirks.headers, quirks.refused) == ({"x-a": "{region}"}, ("stop",))


def test_only_what_is_asked_for_is_loaded(install: Install) -> None:
    install("acme_rows_d", ROWS, "acme = acme_rows_d:row")
    install("acme_loud", "raise RuntimeError('loaded')", "loud = acme_loud:row")
    assert look_up("acme").name == "acme"
    assert is_known("loud")
    with pytest.raises(UnknownProvider, match=r"known are .*acme.*loud"):
        look_up("zzzzzzzz")


def test_a_broken_package_does_not_break_the_choice_of_a_provider(
    install: Install, no_keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del no_keys
    install("acme_breaks", "raise RuntimeError('boom')", "acme = acme_breaks:row")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert connect().provider == "openai"


def test_the_same_name_from_two_packages_is_an_error_for_that_name(install: Install) -> None:
    install("acme_one", ROWS, "acme = acme_one:row")
    install("acme_two", ROWS, "acme = acme_two:row")
    with pytest.raises(ConfigError, match=r"package acme_(one|two) and package acme_(one|two) .*uninstall all but one"):
        look_up("acme")
    assert all_providers() == TABLE


def test_a_package_with_a_malformed_file_is_left_out_and_told_of(
    install: Install, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install("acme_rows_e", ROWS, "acme = acme_rows_e:row")
    install("malformed", "", "this is no entry point")

    def entry_points(*, group: str) -> list[metadata.EntryPoint]:
        found = [package.entry_points for package in metadata.distributions()]
        return [entry for entries in found for entry in entries if entry.group == group]

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    with pytest.raises(Exception, match=r"EntryPoint|argument|unpack|attribute"):
        entry_points(group=plugins.PROVIDERS)
    assert look_up("acme").name == "acme"
    assert "the entry points of package malformed cannot be read (" in caplog.text


# --- dialects --------------------------------------------------------------------------------------

DIALECT = """
from loomstream.dialects.openai_chat import build_request, parse_error, parse_response, translator

FRAMING = "sse"
"""
SPEAKS = """
from loomstream.providers import Provider
row = Provider(name="acme", dialect="acme_chat", base_url="https://api.acme.test/v1", default_model="m", auth="none")
"""


def test_a_package_can_add_a_dialect(install: Install) -> None:
    install("acme_dialect_a", DIALECT + SPEAKS, "acme = acme_dialect_a:row", dialects=("acme_chat = acme_dialect_a",))
    assert look_up("acme").dialect == "acme_chat"
    assert framing("acme_chat") == "sse"
    assert dialect_names()[-1] == "acme_chat"
    body = ANSWER.replace(b"data: [DONE]", b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}')
    assert TextDelta(0, "a") in list(loomstream.decode("acme", body))
    assert TextDelta(0, "a") in list(loomstream.decode("openai", body, dialect="acme_chat"))


def test_a_dialect_of_ours_cannot_be_replaced(install: Install) -> None:
    install("acme_dialect_b", "raise RuntimeError('loaded')", dialects=("openai_chat = acme_dialect_b",))
    assert dialect_module("openai_chat").__name__ == "loomstream.dialects.openai_chat"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("FRAMING = 'sse'", "lacks build_request, translator, parse_response, parse_error"),
        (DIALECT.replace("parse_error, ", ""), "lacks parse_error: see loomstream.dialects"),
        (DIALECT.replace('"sse"', '"smoke"'), "FRAMING = 'smoke': give one of aws, json, ndjson, sse"),
        (DIALECT.replace("FRAMING", "OTHER"), "FRAMING = None"),
        ("raise RuntimeError('boom')", "cannot be loaded .*boom"),
    ],
)
def test_a_module_that_is_no_dialect(install: Install, source: str, what: str) -> None:
    module = f"acme_dialect_{abs(hash(source))}"
    install(module, source, dialects=(f"acme_chat = {module}",))
    with pytest.raises(ConfigError, match=f"entry point 'acme_chat' of package {module} .*{what}"):
        dialect_module("acme_chat")


class Broken:
    """A dialect whose functions raise, or give what they must not."""

    def __init__(self, function: str, result: object) -> None:
        from loomstream.dialects import openai_chat  # noqa: PLC0415 (only what is broken differs)

        for name in ("build_request", "parse_response", "parse_error", "translator"):
            setattr(self, name, getattr(openai_chat, name))
        self.feed = self.finish = lambda *_: []
        if function in ("feed", "finish"):
            self.translator = lambda target: self  # noqa: ARG005 (its signature)
        setattr(self, function, lambda *_: self._end(result))

    def _end(self, result: object) -> object:
        if isinstance(result, Exception):
            raise result
        return result


def broken(monkeypatch: pytest.MonkeyPatch, function: str, result: object, status: int = 200) -> ReplayTransport:
    dialect = plugins.PluginDialect("acme_chat", "sse", Broken(function, result))  # type: ignore[arg-type]
    monkeypatch.setattr("loomstream.attempt.dialect_module", lambda name: dialect)  # noqa: ARG005 (its signature)
    return ReplayTransport(Recording([ANSWER], status))


async def end_of(transport: ReplayTransport, **options: object) -> tuple[list[Event], LoomstreamError]:
    events: list[Event] = []
    async with replay_model("openai", transport=transport, **options) as model, model.stream("x") as stream:
        with pytest.raises(LoomstreamError) as caught:  # noqa: PT012 (what came before counts)
            async for event in stream:
                events.append(event)  # noqa: PERF401 (the same)
    return events, caught.value


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("function", "result", "what"),
    [
        ("build_request", KeyError("x"), "raised in its build_request: KeyError"),
        ("build_request", None, "it gave None, no WireRequest"),
        ("build_request", WireRequest(url="x", headers={}, warnings=(1,)), "it gave an int, no str"),  # type: ignore[arg-type]
        ("translator", KeyError("x"), "raised in its translator: KeyError"),
        ("feed", KeyError("x"), "raised in its translator: KeyError"),
        ("feed", None, "it gave None, no list"),
        ("feed", ["text"], "it gave a str where an event was expected"),
        ("finish", RuntimeError("boom"), "raised in its translator: RuntimeError: boom"),
    ],
)
async def test_what_a_dialect_raises_becomes_typed(
    monkeypatch: pytest.MonkeyPatch, function: str, result: object, what: str
) -> None:
    _, error = await end_of(broken(monkeypatch, function, result))
    assert type(error) is MiddlewareError
    assert str(error).startswith("the dialect 'acme_chat' raised in its ")
    assert what in str(error)
    assert error.__cause__ is not None


@pytest.mark.anyio
async def test_the_errors_of_answers_are_guarded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _, error = await end_of(broken(monkeypatch, "parse_error", ZeroDivisionError("x"), status=500))
    assert "raised in its parse_error(status=500): ZeroDivisionError" in str(error)
    _, error = await end_of(broken(monkeypatch, "parse_error", ServerFault("typed", status=500), status=500))
    assert (type(error), str(error)) == (ServerFault, "typed")
    _, error = await end_of(broken(monkeypatch, "build_request", ConfigError("its own")))
    assert (type(error), str(error)) == (ConfigError, "its own")
    whole = broken(monkeypatch, "parse_response", OSError("x"))
    whole._recordings[:] = [Recording([b'{"choices":[]}'], headers={"content-type": "application/json"})]
    _, error = await end_of(whole, stream=False)
    assert "raised in its parse_response: OSError" in str(error)


# --- handlers --------------------------------------------------------------------------------------

HANDLER = """
from contextlib import asynccontextmanager
from loomstream.providers import Provider
from loomstream.testing import text_events

row = Provider(name="acme", handler="{module}:make", auth="none", default_model="m")

{code}
"""
GOOD = """
def make(model, credentials):
    @asynccontextmanager
    async def handler(request):
        async def events():
            for event in text_events("Hello from ", model, provider=credentials.provider):
                yield event
        made = events()
        try:
            yield made
        finally:
            await made.aclose()
    return handler
"""


@pytest.mark.anyio
async def test_a_package_can_bring_a_handler_of_its_own(install: Install) -> None:
    install("acme_handler_a", HANDLER.format(module="acme_handler_a", code=GOOD), "acme = acme_handler_a:row")
    async with connect("acme:some-model") as model:
        await model.prepare()
        response = await model.complete("x")
    assert (response.text, response.provider) == ("Hello from some-model", "acme")


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("", "cannot be imported"),
        ("def make(model): pass", "its handler raised TypeError"),
        ("raise RuntimeError('boom')", "cannot be loaded .*boom"),
    ],
)
def test_a_handler_that_cannot_be_made(install: Install, code: str, what: str) -> None:
    module = f"acme_handler_{abs(hash(code))}"
    install(module, HANDLER.format(module=module, code=code), f"acme = {module}:row")
    with pytest.raises(ConfigError, match=what):
        connect("acme")


def test_a_handler_s_module_that_fails_when_it_is_imported(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("acme_handler_c", "raise RuntimeError('boom')")
    monkeypatch.setitem(
        __import__("loomstream.providers.table", fromlist=["BY_NAME"]).BY_NAME,
        "acme",
        Provider(name="acme", handler="acme_handler_c:make", default_model="m"),
    )
    with pytest.raises(ConfigError, match=r"cannot be started: its handler='acme_handler_c:make' .*boom"):
        connect("acme")


@pytest.mark.anyio
async def test_what_a_handler_raises_becomes_typed(install: Install) -> None:
    code = "def make(model, credentials):\n    def handler(request):\n        raise KeyError('x')\n    return handler"
    install("acme_handler_b", HANDLER.format(module="acme_handler_b", code=code), "acme = acme_handler_b:row")
    async with connect("acme") as model:
        with pytest.raises(MiddlewareError, match="KeyError"):
            await model.complete("x")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("def scheme(credentials): raise KeyError('x')", "raised KeyError: "),
        ("def scheme(credentials): return None", "raised AttributeError: "),
    ],
)
async def test_what_a_scheme_raises_becomes_typed(install: Install, code: str, what: str) -> None:
    module = f"acme_scheme_{abs(hash(code))}"
    row = f"Provider(name='acme', auth='{module}:scheme', base_url='https://a.test', default_model='m')"
    source = f"from loomstream.providers import Provider\n{code}\nrow = {row}"
    install(module, source, f"acme = {module}:row")
    async with connect("acme") as model:
        with pytest.raises(ConfigError, match=f"the authentication scheme '{module}:scheme' of acme {what}"):
            await model.prepare()
        with pytest.raises(ConfigError, match=what):
            await model.complete("x")


def test_what_a_configuration_says_of_models_holds_under_each_name_of_a_row(install: Install, tmp_path: Path) -> None:
    source = (
        "from loomstream.providers import Provider\n"
        "row = Provider(name='acme', aliases=('road',), base_url='https://acme.test/v1', dialect='openai_chat')\n"
    )
    install("acme_rows", source, "acme = acme_rows:row", "road = acme_rows:row", "bad = acme_rows:nothing")
    file = tmp_path / "looms.yaml"
    for name, provider in (("acme", "acme"), ("road", "acme"), ("azureopenai", "azure-openai")):
        file.write_text(f"models: {{'{name}:m': {{context_tokens: 7}}}}\n", "utf-8")
        entry = load(file, environ={}).models[0]
        assert (entry.provider, entry.model) == (look_up(name).name, "m") == (provider, "m")
    file.write_text("models: {'bad:m': {context_tokens: 7}}\n", "utf-8")
    with pytest.raises(ConfigError, match=r"looms\.yaml:1:\d+: models\.bad:m: the entry point 'bad'"):
        load(file, environ={})
