"""Who may talk to the page, and what it says to rubbish: on bare ASGI, without a browser."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from live_page import OFFER, TOKEN, PageModel

from loomstream import events as e
from loomstream.errors import ConfigError, LimitExceeded, UsageError
from loomstream.messages import Message, Tool, ToolCall, user
from loomstream.testing import scripted_model, tool_call_events
from loomstream.ui.page import chat as chats
from loomstream.ui.page.answering import Desk, ToolAnswer
from loomstream.ui.page.app import make_app
from loomstream.ui.page.chat import Chat
from loomstream.ui.page.choices import choices
from loomstream.ui.page.guard import Guard

pytestmark = pytest.mark.anyio
HOST = (b"host", b"127.0.0.1:8765")
COOKIE = (b"cookie", f"other=1; looms_8765={Guard.pass_of(TOKEN)}".encode())
BEARER = (b"authorization", f"Bearer {TOKEN}".encode())
JSON = (b"content-type", b"application/json")
SAID = [e.Start("acme", "m"), e.TextStart(0), e.TextDelta(0, "Hello."), e.TextEnd(0), e.Stop("end_turn")]


class Reply:
    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    async def send(self, message: Any) -> None:  # noqa: ANN401 (ASGI)
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        self.body += message.get("body", b"")

    @property
    def json(self) -> Any:  # noqa: ANN401 (any JSON)
        return json.loads(self.body)


async def ask(app: Any, path: str, *headers: tuple[bytes, bytes], method: str = "GET", body: bytes = b"") -> Reply:  # noqa: ANN401
    reply = Reply()
    path, _, query = path.partition("?")
    pieces = [body[start : start + 1000] for start in range(0, len(body), 1000)] or [b""]

    async def receive() -> Any:  # noqa: ANN401 (ASGI)
        if not pieces:
            await anyio.sleep_forever()  # the client waits
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "scheme": "http",
        "headers": list(headers),
        "http_version": "1.1",
    }
    await app(scope, receive, reply.send)
    return reply


@asynccontextmanager
async def page(**options: Any) -> AsyncGenerator[tuple[Guard, PageModel]]:  # noqa: ANN401
    model = PageModel()

    def connect(spec: str) -> PageModel:
        if spec == "broken:":
            msg = "broken is not known"
            raise ConfigError(msg)
        return model

    given: dict[str, Any] = {"token": TOKEN, "port": 8765, "offer": lambda _: OFFER, **options}
    app = make_app(connect, **given)
    async with app._app.router.lifespan_context(app._app):
        yield app, model


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((HOST, COOKIE), 200),
        ((HOST, BEARER), 200),
        (((b"host", b"localhost:8765"), COOKIE), 200),
        (((b"host", b"[::1]:8765"), COOKIE), 200),
        ((HOST, COOKIE, (b"origin", b"http://127.0.0.1:8765"), (b"sec-fetch-site", b"same-origin")), 200),
        ((HOST,), 401),
        ((HOST, (b"authorization", b"Bearer wrong")), 401),
        ((HOST, (b"authorization", f"Basic {TOKEN}".encode())), 401),
        ((HOST, (b"cookie", f"looms_8765={TOKEN}".encode())), 401),
        ((HOST, (b"cookie", f"looms_9999={Guard.pass_of(TOKEN)}".encode())), 401),
        ((HOST, (b"cookie", b'looms_8765="; \x00=;;=\xff')), 401),
        ((COOKIE,), 403),
        (((b"host", b"evil.example"), COOKIE), 403),
        (((b"host", b"127.0.0.1.evil.example:8765"), COOKIE), 403),
        (((b"host", b"127.0.0.1:8765@evil.example"), COOKIE), 403),
        (((b"host", b"192.168.1.2:8765"), COOKIE), 403),
        (((b"host", b"[::1"), COOKIE), 403),
        ((HOST, (b"host", b"evil.example"), COOKIE), 403),
        ((HOST, COOKIE, (b"origin", b"https://evil.example")), 403),
        ((HOST, COOKIE, (b"origin", b"http://127.0.0.1:9999")), 403),
        ((HOST, COOKIE, (b"origin", b"null")), 403),
        ((HOST, COOKIE, (b"sec-fetch-site", b"cross-site")), 403),
        ((HOST, COOKIE, (b"sec-fetch-site", b"same-site")), 403),
        ((HOST, COOKIE, (b"content-length", b"99999999")), 413),
        ((HOST, COOKIE, (b"content-length", b"-1")), 413),
    ],
)
async def test_who_is_let_in(headers: tuple[tuple[bytes, bytes], ...], status: int) -> None:
    async with page() as (app, _):
        reply = await ask(app, "/api/models", *headers)
        assert reply.status == status
        assert ("models" in reply.body.decode()) is (status == 200)


async def test_names_and_addresses_of_a_page_that_is_open_to_the_network() -> None:
    async with page(only_loopback=False, hosts=["Phone.local"]) as (app, _):
        for host, status in ((b"192.168.1.2:8765", 200), (b"phone.local:8765", 200), (b"evil.example", 403)):
            assert (await ask(app, "/api/models", (b"host", host), COOKIE)).status == status


async def test_every_answer_carries_the_policy() -> None:
    async with page() as (app, _):
        replies = [
            await ask(app, path, HOST, *extra)
            for path in ("/", "/app.js", "/login", "/nowhere", "/api/models")
            for extra in ((), (COOKIE,), ((b"origin", b"null"),))
        ]
    for reply in replies:
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert "unsafe" not in reply.headers["content-security-policy"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in reply.headers


async def test_the_address_with_the_token_sets_a_cookie_that_does_not_hold_it() -> None:
    async with page() as (app, _):
        reply = await ask(app, f"/?token={TOKEN}", HOST)
        assert (reply.status, reply.headers["location"]) == (303, "/")
        cookie = reply.headers["set-cookie"]
        assert TOKEN not in cookie
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert (await ask(app, "/", HOST, (b"cookie", cookie.partition(";")[0].encode()))).status == 200
        for wrong in ("/?token=wrong", "/?token=", "/", "/?token=%ff"):
            assert (await ask(app, wrong, HOST)).headers["location"] == "/login"
        form = f"token={TOKEN}".encode()
        assert "set-cookie" in (await ask(app, "/login", HOST, method="POST", body=form)).headers
        refused = await ask(app, "/login", HOST, (b"origin", b"https://evil.example"), method="POST", body=form)
        assert (refused.status, "set-cookie" in refused.headers) == (403, False)


async def test_an_entrance_is_good_for_one_visit() -> None:
    async with page() as (app, _):
        entrance = app.entrance()
        assert TOKEN not in entrance
        assert (await ask(app, "/?once=", HOST)).headers["location"] == "/login"
        assert "set-cookie" in (await ask(app, f"/{entrance}", HOST)).headers
        for query in (entrance, "?once="):
            assert (await ask(app, f"/{query}", HOST)).headers["location"] == "/login"


async def test_without_a_token_the_origin_still_counts() -> None:
    async with page(token=None) as (app, _):
        assert (await ask(app, "/api/models", HOST)).status == 200
        assert (await ask(app, "/api/models", HOST, (b"origin", b"https://evil.example"))).status == 403
        assert (await ask(app, "/api/models", (b"host", b"evil.example"))).status == 403


MESSAGES = "/api/conversations/c1/messages"


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        (MESSAGES, b'{"text":"Hi","spec":"acme:m"}', (JSON,), 201),
        (MESSAGES, b'{"text":"Hi","spec":"acme:m"}', ((b"content-type", b"text/plain"),), 422),
        (MESSAGES, b"{", (JSON,), 422),
        (MESSAGES, b"\xff", (JSON,), 422),
        (MESSAGES, b"[" * 100_000, (JSON,), 422),
        (MESSAGES, b'{"text":7,"spec":"acme:m"}', (JSON,), 422),
        (MESSAGES, b'{"text":"Hi","spec":"acme:m","role":"system"}', (JSON,), 422),
        (MESSAGES, b'{"text":"  ","spec":"acme:m"}', (JSON,), 409),
        (MESSAGES, b'{"text":"Hi","spec":"broken:"}', (JSON,), 422),
        ("/api/conversations/..%2f/messages", b"{}", (JSON,), 422),
        (f"/api/conversations/{'c' * 65}/messages", b"{}", (JSON,), 422),
        (MESSAGES, b'"' + b"x" * 20_000 + b'"', (JSON,), 413),
        ("/api/models", b"", (), 405),
        ("/api/nothing", b"", (), 404),
    ],
)
async def test_what_is_posted(path: str, body: bytes, headers: tuple[tuple[bytes, bytes], ...], status: int) -> None:
    async with page(max_body_bytes=10_000 if len(body) < 50_000 else 1_000_000) as (app, model):
        reply = await ask(app, path, HOST, COOKIE, *headers, method="POST", body=body)
        assert reply.status == status
        if status in (409, 422):
            assert set(reply.json) == {"type", "error", "message", "retry_safety", "retry_after_s"}
        await anyio.sleep(0.01)
        assert len(model.requests) == (status == 201)


async def test_one_answer_at_a_time_and_what_is_kept_of_it() -> None:
    async with page() as (app, model):
        body = b'{"text":"Hi","spec":"acme:m"}'
        begun = await ask(app, MESSAGES, HOST, COOKIE, JSON, method="POST", body=body)
        assert begun.json["answer"]["state"] == "running"
        assert (await ask(app, MESSAGES, HOST, COOKIE, JSON, method="POST", body=body)).status == 409
        model.give(*SAID)
        model.end()
        key = begun.json["answer"]["key"]
        assert b"Hello." in (await ask(app, f"/api/answers/{key}/events", HOST, COOKIE)).body
        await anyio.sleep(0.01)
        [turn] = (await ask(app, "/api/conversations/c1", HOST, COOKIE)).json["turns"]
        assert turn["answer"]["state"] == "done"
        assert turn["answer"]["blocks"] == [
            {"kind": "text", "text": "Hello.", "name": "", "call": "", "is_error": False}
        ]
        assert (await ask(app, "/api/conversations/c1", HOST, COOKIE, method="DELETE")).status == 204
        assert (await ask(app, "/api/conversations/c1", HOST, COOKIE)).json["turns"] == []
        assert (await ask(app, "/api/answers/unknown/events", HOST, COOKIE)).status == 204


async def test_conversations_are_listed_and_renamed() -> None:
    async with page() as (app, model):
        for name, text in (("c1", "First\nof all " + "x" * 200), ("c2", "Second")):
            body = json.dumps({"text": text, "spec": "acme:m"}).encode()
            await ask(app, f"/api/conversations/{name}/messages", HOST, COOKIE, JSON, method="POST", body=body)
        model.give(*SAID)
        model.end()
        listed = (await ask(app, "/api/conversations", HOST, COOKIE)).json
        assert [(entry["id"], entry["title"][:12], len(entry["title"])) for entry in listed] == [
            ("c2", "Second", 6),
            ("c1", "First of all", 80),
        ]
        renamed = await ask(
            app, "/api/conversations/c1", HOST, COOKIE, JSON, method="PATCH", body=b'{"title":" A  b "}'
        )
        assert renamed.json["title"] == "A b"
        for path, body, status in (("c9", b'{"title":"x"}', 409), ("c1", b'{"title":1}', 422), ("..", b"{}", 422)):
            reply = await ask(app, f"/api/conversations/{path}", HOST, COOKIE, JSON, method="PATCH", body=body)
            assert reply.status == status


async def test_a_word_on_a_call_that_does_not_wait_is_refused() -> None:
    async with page() as (app, _):
        for body, status in ((b'{"id":"c","allow":true}', 409), (b'{"id":"c","allow":"yes"}', 422), (b"[", 422)):
            reply = await ask(app, "/api/answers/x/decisions", HOST, COOKIE, JSON, method="POST", body=body)
            assert reply.status == status


async def test_forgetting_a_conversation_stops_its_answer() -> None:
    model = PageModel()
    async with Chat(lambda _: model) as chat:
        chat.ask("c1", "Hi", "acme:m")
        await anyio.sleep(0.01)
        assert model.open_streams == 1
        model.give(*SAID[:-1])
        await anyio.sleep(0.01)
        chat.forget("c1")
        await anyio.sleep(0.01)
        assert model.open_streams == 0
        assert chat._histories == {}


async def test_calls_without_results_are_not_told_to_the_next_model() -> None:
    model = PageModel()
    async with Chat(lambda _: model) as chat:
        chat.ask("c1", "Hi", "acme:m")
        model.give(*SAID[:-1], e.ToolCallStart(1, "c", "f"), e.ToolCallEnd(1, "c", "f", "{}"), e.Stop("tool_use"))
        model.end()
        await anyio.sleep(0.01)
        assert [block.kind for block in chat.conversation("c1").turns[0].answer.blocks] == ["text", "tool_call"]
        chat.ask("c1", "Go on", "acme:m")
        await anyio.sleep(0.01)
        sent: tuple[Message, ...] = model.requests[-1].messages
        assert not [block for message in sent for block in message.content if isinstance(block, ToolCall)]
        assert [message.text for message in sent] == ["Hi", "Hello.", "Go on"]


async def test_a_call_of_a_tool_is_the_first_that_comes_of_an_answer() -> None:
    """However long the user thinks about it, the time to the first token is the model's."""
    model = scripted_model(tool_call_events("find", "{}"))
    answer = ToolAnswer(model, [user("?")], [Tool("find", "Find.")], {}, Desk({"find"}), iter(range(100)).__next__)
    async with answer:
        async for event in answer:
            if isinstance(event, e.ToolCallStart):
                break
        assert answer.first_text_s == 1


async def test_conversations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chats, "MAX_CONVERSATIONS", 2)
    monkeypatch.setattr(chats, "MAX_TURNS", 1)
    model = PageModel()
    async with Chat(lambda _: model) as chat:
        for name in ("c1", "c2", "c3"):
            chat.ask(name, "Hi", "acme:m")
            model.give(*SAID)
            model.end()
            await anyio.sleep(0.01)
        assert [len(chat.conversation(name).turns) for name in ("c1", "c2", "c3")] == [0, 1, 1]
        with pytest.raises(LimitExceeded, match="begin a new one"):
            chat.ask("c3", "More", "acme:m")


async def test_an_empty_message_is_said_to_be_empty() -> None:
    async with Chat(lambda _: PageModel()) as chat:
        with pytest.raises(UsageError, match="empty"):
            chat.ask("c1", " \n", "acme:m")


@pytest.mark.usefixtures("no_keys")
async def test_the_models_on_offer_are_those_that_have_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {choice.provider for choice in choices()}
    assert named <= {"local"}
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-canary")
    found = choices("acme:first")
    assert found[0].spec == "acme:first"
    assert "anthropic" in {choice.provider for choice in found}
    assert "openai" not in {choice.provider for choice in found}
    assert "sk-canary" not in repr(found)
