"""The security rules S1 to S22, a test named after each; docs/reference/security.md says what each one is about.

What has whole test files of its own is tried here once, by what a user can see.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import logging
import os
import pickle
import re
import ssl
import stat
import tomllib
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import click
import keyring
import msgspec
import pytest
from canaries import SHAPES, hits
from click.testing import CliRunner

from loomstream import connect, errors, events
from loomstream.cli.group import looms
from loomstream.cli.key_options import KEY_FLAGS
from loomstream.cli.terminal import TerminalFilter
from loomstream.config.keyring_store import set_key
from loomstream.config.keys import resolve_key
from loomstream.config.load import load
from loomstream.config.private_file import write_private
from loomstream.config.settings import Observability
from loomstream.errors import ConfigError, LimitExceeded, LoomstreamError, RedirectRefused
from loomstream.middleware.budget import budget
from loomstream.transport.http import HttpOptions
from loomstream.transport.outgoing import check_base_url, check_url
from loomstream.transport.tls import make_context
from loomstream.wire import DEFAULT_MAX_FRAME_BYTES, Secret
from loomstream.wire.sse import SSEDecoder

pytestmark = pytest.mark.usefixtures("no_keys")

CANARY = SHAPES["openai"]
PACKAGE = Path(errors.__file__).parent
ROOT = PACKAGE.parent


class Sink:
    """A host on loopback that answers as it is told, and keeps what it was sent."""

    def __init__(self) -> None:
        self.status, self.headers, self.body = 401, dict[str, str](), b"{}"
        self.sent: list[tuple[str, dict[str, str]]] = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                sink.sent.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                self.send_response(sink.status)
                for name, value in {"content-length": str(len(sink.body)), **sink.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(sink.body)

            do_GET = do_POST  # noqa: N815 (the base's name)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    thread = Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


async def failure(spec: str, **options: object) -> LoomstreamError:
    with pytest.raises(LoomstreamError) as caught:  # noqa: PT012 (only reading stands in it)
        async with connect(spec, middleware=(), **options) as model, model.stream("hello") as stream:
            async for _ in stream:
                pass
    return caught.value


# --- S1 to S4: a key is never seen ---------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_s1_a_secret_shows_nothing_of_itself(shape: str) -> None:
    secret = Secret(SHAPES[shape])

    @dataclasses.dataclass
    class Holder:
        key: Secret

    holder = Holder(secret)
    shown = f"{secret} {secret!r} {secret!s} {secret:>80} {holder} {dataclasses.asdict(holder)} {vars(holder)}"
    shown += str(copy.deepcopy(holder))
    assert hits(shown, SHAPES[shape]) == []
    for encode in (pickle.dumps, json.dumps, msgspec.json.encode, msgspec.to_builtins):
        with pytest.raises(TypeError) as caught:
            encode(secret)
        assert hits(str(caught.value), SHAPES[shape]) == []


@pytest.mark.anyio
@pytest.mark.parametrize("shape", SHAPES)
async def test_s2_s3_neither_logs_nor_errors_nor_their_locals_show_a_key(
    shape: str, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    secret = SHAPES[shape]
    caplog.set_level(logging.DEBUG)
    sink.body = json.dumps({"error": {"message": f"wrong key: {secret}"}}).encode()
    told = [await failure("openai", base_url=sink.url, api_key=secret)]
    told.append(await failure("openai", base_url=sink.url, api_key=f"{secret}\r\nx-evil: 1"))
    assert [type(error).__name__ for error in told] == ["AuthFailed", "ConfigError"]
    for error in told:
        inside = traceback.TracebackException.from_exception(error, capture_locals=True)
        inside.stack = traceback.StackSummary.from_list([each for each in inside.stack if "tests" not in each.filename])
        shown = "".join(inside.format()) + repr(error) + repr(vars(error)) + str(getattr(error, "__notes__", ""))
        assert hits(shown, secret) == []
    assert hits(caplog.text, secret) == []


@pytest.mark.anyio
async def test_s4_the_key_of_gemini_is_a_header_and_no_part_of_a_url(sink: Sink) -> None:
    await failure("gemini", base_url=sink.url, api_key=CANARY)
    path, headers = sink.sent[0]
    assert CANARY not in path
    assert headers["x-goog-api-key"] == CANARY
    for url in (f"https://host.example/v1?key={CANARY}", f"https://user:{CANARY}@host.example/v1"):
        error = await failure("openai", base_url=url, api_key="sk-other")
        assert isinstance(error, ConfigError)
        assert CANARY not in str(error)


# --- S5 to S9: where a key goes ------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("key_in", ["keyring", "environment"])
async def test_s5_a_file_of_the_working_folder_sends_no_key_elsewhere(
    key_in: str, sink: Sink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloned = tmp_path / "cloned"
    cloned.mkdir()
    (cloned / "looms.yaml").write_text(f"llm:\n  provider: openai\n  openai_base_url: {sink.url}\n")
    monkeypatch.chdir(cloned)
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path / "data"))
    if key_in == "keyring":
        keyring.set_keyring(in_memory())
        set_key("openai_api_key", Secret(CANARY))
    else:
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with pytest.raises(ConfigError, match="--allow-custom-host"):
        connect("openai")
    assert sink.sent == []
    await failure("openai", allow_custom_host=True)
    assert sink.sent[0][1]["authorization"] == f"Bearer {CANARY}"
    await failure("openai", config=cloned / "looms.yaml")  # who names the file trusts it
    assert len(sink.sent) == 2


@pytest.mark.parametrize(
    "url",
    [
        "http://host.example/v1",
        "ftp://host.example",
        "file:///etc/passwd",
        "https://user@host.example",
        "https://",
        "http://127.0.0.1.evil.example",
        "http://169.254.169.254/latest",
        "javascript:alert(1)",
        "https://host.example:99999",
        "http://[::ffff:8.8.8.8]/",
    ],
)
def test_s6_an_address_is_https_or_this_machine(url: str) -> None:
    with pytest.raises(ConfigError):
        check_url(url, allow_http=False)


@pytest.mark.parametrize("url", ["https://host.example/v1?a=b", "https://host.example/#x", "word"])
def test_s6_a_base_url_has_neither_query_nor_fragment(url: str) -> None:
    with pytest.raises(ConfigError):
        check_base_url(url)


@pytest.mark.anyio
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_s7_no_redirect_is_followed(status: int, sink: Sink) -> None:
    sink.status, sink.headers = status, {"location": f"{sink.url}/elsewhere"}
    assert isinstance(await failure("openai", base_url=sink.url, api_key=CANARY), RedirectRefused)
    assert [path for path, _ in sink.sent] == ["/chat/completions"]


def test_s8_certificates_are_always_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not {"verify", "insecure"} & set(HttpOptions.__struct_fields__)
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    environ = {"SSLKEYLOGFILE": str(tmp_path / "keys")}
    context = make_context(ca_bundle=None, client_cert=None, environ=environ)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert getattr(context, "keylog_filename", None) is None


@pytest.mark.anyio
@pytest.mark.parametrize("model", ["a/../../b", "a\r\nx-evil: 1", "a?key=1#x", "a b/\u00e9", "..%2f..", "a%0d%0ab"])
async def test_s9_a_model_s_name_stays_a_part_of_the_path(model: str, sink: Sink) -> None:
    error = await failure(f"gemini:{model}", base_url=sink.url, api_key=CANARY)
    for path, headers in sink.sent:
        assert "x-evil" not in headers
        assert re.fullmatch(r"/models/[^/?#\s]+(/[^/?#\s]+)*:streamGenerateContent\?alt=sse", path)
        assert "/../" not in path
    assert sink.sent or isinstance(error, (ConfigError, errors.RequestError))


# --- S10 to S16: what comes in -------------------------------------------------------------------


def test_s10_what_comes_in_is_limited() -> None:
    assert DEFAULT_MAX_FRAME_BYTES == 16 * 1024 * 1024
    decoder = SSEDecoder(max_frame_bytes=1024)
    found = [each for _ in range(3) for each in decoder.feed(b"data: " + b"x" * 500)]
    assert [type(each.error) for each in found if hasattr(each, "error")] == [LimitExceeded]


BANNED = {"eval", "exec", "compile", "__import__"}
BANNED_MODULES = {"pickle", "marshal", "shelve", "jinja2"}
BANNED_OF_YAML = {"load", "full_load", "unsafe_load", "load_all", "Loader", "UnsafeLoader", "FullLoader"}


def is_banned(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name in BANNED
        case ast.Import(names=names):
            return bool({alias.name.partition(".")[0] for alias in names} & BANNED_MODULES)
        case ast.ImportFrom(module=str(module)):
            return module.partition(".")[0] in BANNED_MODULES
        case ast.Attribute(value=ast.Name(id="yaml"), attr=name):
            return name in BANNED_OF_YAML
        case _:
            return False


def test_s11_no_text_is_ever_run_as_code() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    words = re.compile("|".join((*BANNED, *BANNED_MODULES, "yaml")))
    found = [
        f"{file.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}"
        for file in files
        if words.search(file.read_text("utf-8"))
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if is_banned(node)
    ]
    assert found == []


BOMB = "c0: &c0 [x, x]\n" + "".join(f"c{n}: &c{n} [*c{n - 1}, *c{n - 1}]\n" for n in range(1, 40))


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch evil']\n",
        "!!python/name:os.system\n",
        BOMB,
        "llm: {{openai_model: x}: 1}\n",
        "llm:\n  openai_model: ${HOME}\n  temperature: !!binary aGk=\n",
        "a" * (1024 * 1024 + 1),
        "[" * 5000,
    ],
    ids=["apply", "name", "aliases", "key", "tag", "huge", "deep"],
)
def test_s11_a_malicious_file_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "looms.yaml").write_text(text)
    with pytest.raises(ConfigError):
        load(tmp_path / "looms.yaml", environ={})
    assert os.listdir() == ["looms.yaml"]  # noqa: PTH208 (names)


def test_s12_a_user_s_data_is_never_taken_for_one_of_our_types() -> None:
    text = json.dumps({"type": "stop", "lc": 1, "id": ["langchain", "x"], "reason": "end_turn"})
    event = events.TextDelta(index=0, text=text)
    assert events.decode(events.encode(event)) == event


def test_s13_what_is_written_is_its_owner_s_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "folder" / "file", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "folder" / "file").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def test_s14_no_option_takes_a_key_but_the_seed_s() -> None:
    with_values = [each for _, command in commands(looms) for each in command.params if not getattr(each, "is_flag", 0)]
    options = {option for each in with_values for option in each.opts}
    of_keys = {option for option in options if re.search("(key|token|secret|password)$", option)}
    no_providers = {"--token", "--api-key"}  # what lets a browser in to `looms ui`, and a client to `looms simulate`
    assert of_keys - no_providers <= {*KEY_FLAGS.values()}
    names = {"-".join(path) for path, _ in commands(looms)}
    assert {"config-set-key", "config-get-key", "config-list-keys", "config-delete-key"} <= names


def in_memory(module: str = __name__) -> keyring.backend.KeyringBackend:
    entries: dict[str, str] = {}
    methods = {
        "priority": -1,
        "get_password": lambda self, service, name: entries.get(name),  # noqa: ARG005 (the backend's signature)
        "set_password": lambda self, service, name, value: entries.update({name: value}),  # noqa: ARG005 (the same)
        "delete_password": lambda self, service, name: entries.pop(name),  # noqa: ARG005 (the same)
        "__module__": module,
    }
    return type("Keyring", (keyring.backend.KeyringBackend,), methods)()


@pytest.mark.anyio
@pytest.mark.parametrize("module", ["keyrings.alt.file", "keyring.backends.null", "keyring.backends.fail"])
async def test_s15_a_keyring_in_plain_text_or_of_nothing_is_not_used(module: str) -> None:
    kept = in_memory(module)
    kept.set_password("loom", "openai_api_key", CANARY)
    keyring.set_keyring(kept)
    assert await resolve_key(provider="openai", keyring_name="openai_api_key", environ={}) is None
    with pytest.raises(ConfigError, match="Nothing is stored in plain text"):
        set_key("other", Secret(CANARY))


@pytest.mark.parametrize(
    "text",
    ["\x1b]52;c;ZXZpbA==\x07", "\x1b[2J", "\x9b31m", "\x1b]8;;http://evil\x1b\\", "\u202eevil", "\x1bP1$x\x1b\\", "\r"],
)
def test_s16_a_model_s_words_cannot_drive_a_terminal(text: str) -> None:
    shown = TerminalFilter().feed(f"a{text}b")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown)


# --- S17 to S22 ----------------------------------------------------------------------------------


def test_s17_prompts_and_answers_are_not_reported_unless_asked_for() -> None:
    assert Observability().capture_content is False
    assert load(environ={}).value("observability.capture_content") is False


def test_s18_a_budget_refuses_what_it_cannot_count() -> None:
    with pytest.raises(LoomstreamError, match="price of openai:nothing is not known"):
        budget("openai", "nothing", limit_usd=1)


def test_s19_no_key_is_kept_in_a_cache() -> None:
    cached = [
        file
        for file in PACKAGE.rglob("*.py")
        if re.search(r"@(functools\.)?(lru_)?cache\b", text := file.read_text("utf-8"))
        and re.search(r"@(?:functools\.)?(?:lru_)?cache[^\n]*\n(?:async )?def \w+\([^)]*(?:Secret|api_key)", text)
    ]
    assert cached == []


def test_s20_dependencies_are_few_and_bounded_and_nothing_runs_at_start() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    every = [*project["dependencies"], *(each for group in ("bedrock", "azure", "vertex", "local", "redis", "serve")
                                         for each in project["optional-dependencies"][group])]  # fmt: skip
    unbounded = [each for each in every if not re.search(r">=[\d.]+,<[\d.]+", each)]
    assert unbounded == ["certifi"]  # its newest authorities are always the right ones
    assert not list(PACKAGE.rglob("*.pth"))


DOCUMENT = ROOT / "docs" / "reference" / "security.md"


def test_every_rule_has_a_row_and_every_test_it_names_exists() -> None:
    text = DOCUMENT.read_text("utf-8")
    rows = {found[1]: found[2] for found in re.finditer(r"(?m)^\| (S\d+) \|(.+)\|$", text)}
    assert list(rows) == [f"S{number}" for number in range(1, 23)]
    for rule, row in rows.items():
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", row)
        assert named or "not tested" in row, rule
        for file, name in named:
            assert (ROOT / file).exists(), (rule, file)
            assert f"def {name}" in (ROOT / file).read_text("utf-8"), (rule, name)


def test_a_reported_fault_holds_no_key_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOMSTREAM_TRACEBACK", "1")
    monkeypatch.setenv("OPENAI_API_KEY", f"{CANARY}\x00"[:-1] + "\u00e9")
    result = CliRunner().invoke(looms, ["ask", "-p", "openai", "hello"])
    assert "Traceback" in result.output
    assert hits(result.output, CANARY) == []
