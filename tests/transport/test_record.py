"""Recordings: what is written, what is masked, and that it plays again as it came."""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loomstream.errors import ConfigError, ConnectionLost, LoomstreamError
from loomstream.events import Event, TextDelta
from loomstream.testing.clock import virtual_clock_backends
from loomstream.testing.replay import Recording, ReplayTransport, recorded, replay_model
from loomstream.transport.record import RecordingTransport, masked_request, read_recording
from loomstream.wire import Secret, WireRequest

pytestmark = pytest.mark.anyio

LOST = ConnectionLost("reset by peer")
KEY = "sk-proj-abcdefghijklmnop1234"
PLAIN = "zq9Xw7Vt5Rs3Pn1Lk8Jh6Gf4Dd2"
"""One without a vendor's beginning."""


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


def delta(text: str) -> str:
    return f"data: {json.dumps({'id': 'c1', 'choices': [{'index': 0, 'delta': {'content': text}}]})}\n\n"


def answer(*texts: str) -> bytes:
    end = 'data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    return ("".join(map(delta, texts)) + end).encode()


async def ask(transport: object, **options: object) -> list[Event]:
    model = replay_model("openai", transport=transport, middleware=(), **options)  # type: ignore[arg-type]
    async with model, model.stream("Is it safe?") as stream:
        return [event async for event in stream]


async def record(path: Path, body: Sequence[object], **options: object) -> list[Event]:
    return await ask(RecordingTransport(ReplayTransport(Recording(body)), path, **options))  # type: ignore[arg-type]


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_a_recording_keeps_how_chunks_were_cut_and_when_they_came(tmp_path: Path) -> None:
    whole = answer("Hé", "llo")
    cut = whole.index("é".encode()) + 1 if "é".encode() in whole else 40
    body = [whole[:cut], partial(anyio.sleep, 2), whole[cut : cut + 7], partial(anyio.sleep, 1), whole[cut + 7 :]]
    before = await record(tmp_path / "r.jsonl", body)
    [exchange] = read_recording(tmp_path / "r.jsonl")
    assert [chunk.data for chunk in exchange.chunks] == [whole[:cut], whole[cut : cut + 7], whole[cut + 7 :]]
    assert [round(chunk.after_s, 3) for chunk in exchange.chunks] == [0, 2, 3]
    for timing, seconds in ((False, 0), (True, 3)):
        began_s = anyio.current_time()
        assert await ask(ReplayTransport(*recorded(tmp_path / "r.jsonl", timing=timing))) == before
        assert round(anyio.current_time() - began_s, 3) == seconds


async def test_bytes_that_are_no_text_come_back_as_they_were(tmp_path: Path) -> None:
    transport = RecordingTransport(ReplayTransport(Recording([b"\x00\xff", "é".encode()[:1]])), tmp_path / "r.jsonl")
    async with transport.open(WireRequest(url="http://h", headers={})) as response:
        assert [chunk async for chunk in response.chunks] == [b"\x00\xff", b"\xc3"]
    [exchange] = read_recording(tmp_path / "r.jsonl")
    assert [chunk.data for chunk in exchange.chunks] == [b"\x00\xff", b"\xc3"]


async def test_several_exchanges_are_lines_of_one_file_for_its_owner_alone(tmp_path: Path) -> None:
    for text in ("one", "two"):
        await record(tmp_path / "r.jsonl", [answer(text)])
    replay = ReplayTransport(*recorded(tmp_path / "r.jsonl"))
    assert [text_of(await ask(replay)) for _ in range(2)] == ["one", "two"]
    assert stat.S_IMODE((tmp_path / "r.jsonl").stat().st_mode) == 0o600


async def test_a_broken_answer_breaks_again_and_one_that_was_left_says_so(tmp_path: Path) -> None:
    async def breaks() -> None:
        raise LOST

    whole = answer("Hel", "lo")
    with pytest.raises(ConnectionLost):
        await record(tmp_path / "r.jsonl", [whole[:100], breaks])
    with pytest.raises(LoomstreamError):
        await ask(ReplayTransport(*recorded(tmp_path / "r.jsonl")))
    model = replay_model(
        "openai",
        transport=RecordingTransport(ReplayTransport(Recording([whole[:100], whole[100:]])), tmp_path / "r.jsonl"),  # type: ignore[arg-type]
    )
    async with model.stream("hi") as stream:
        async for _ in stream:
            break
    assert [one.outcome for one in read_recording(tmp_path / "r.jsonl")] == ["ConnectionLost: reset by peer", "left"]


# --- secrets -------------------------------------------------------------------------------------


async def exchange_of(path: Path, body: Sequence[bytes], headers: dict[str, str | Secret], **options: object) -> str:
    replay = ReplayTransport(Recording(body, headers={"set-cookie": "session=abc", "x-request-id": "r1"}))
    transport = RecordingTransport(replay, path, **options)  # type: ignore[arg-type]
    request = WireRequest(url="https://h/v1?key=topsecret&alt=sse", headers=headers, body=f'{{"k":"{KEY}"}}'.encode())
    async with transport.open(request) as response:
        assert b"".join([chunk async for chunk in response.chunks]) == b"".join(body)
    return written_in(path)


def written_in(path: Path) -> str:
    return path.read_text()


async def test_no_credential_of_the_request_is_written(tmp_path: Path) -> None:
    headers: dict[str, str | Secret] = {
        "authorization": Secret("Bearer tok/en-0123456789"),
        "x-api-key": "plainkey1",
        "a": "b",
    }
    echo = rb'{"error":"bad key tok/en-0123456789, tok\/en-0123456789 or plainkey1"}'
    written = await exchange_of(tmp_path / "r.jsonl", [echo], headers)
    for secret in ("en-0123456789", "plainkey1", "topsecret", "session=abc", KEY):
        assert secret not in written
    [exchange] = read_recording(tmp_path / "r.jsonl")
    assert exchange.request.headers == {"authorization": "***", "x-api-key": "***", "a": "b"}
    assert exchange.response.headers == {"set-cookie": "***", "x-request-id": "r1"}
    assert exchange.request.url == "https://h/v1?key=***&alt=sse"
    assert [len(chunk.data) for chunk in exchange.chunks] == [len(echo)]


@pytest.mark.parametrize(
    "name",
    ["key", "access_token", "sig", "X-Amz-Signature", "X-Amz-Credential", "code", "auth", "password", "%6bey", "jwt"],
)
async def test_a_secret_of_an_address_is_masked(name: str) -> None:
    url = f"https://me:{PLAIN}@h/v1?a=b;{name}={PLAIN}&{name}={PLAIN}?#{name}={PLAIN}"
    shown = masked_request(WireRequest(url=url, headers={}))
    assert shown.url == f"https://***@h/v1?a=b;{name}=***&{name}=***#{name}=***"


@pytest.mark.parametrize("name", ["X-Auth", "Helicone-Auth", "X-JWT-Assertion", "X-Signature", "Cookie", "apikey"])
async def test_a_header_whose_name_says_so_is_masked(name: str) -> None:
    body = f'{{"echo": "{PLAIN}"}}'.encode()
    shown = masked_request(WireRequest(url="https://h", headers={name: PLAIN}, body=body))
    assert shown.headers == {name: "***"}
    assert PLAIN not in shown.body


@pytest.mark.parametrize(
    "name",
    ["authorization_token", "authorization", "key", "api_key", "apiKey", "x-api-key", "client_secret", "password",
     "access_token", "refreshToken", "secret_access_key", "private_key", "connection_string"],
)  # fmt: skip
async def test_a_credential_in_the_body_is_masked_by_its_name(name: str) -> None:
    """MCP servers, and the data that an answer rests on, have theirs there."""
    body = json.dumps({"tools": [{"type": "mcp", name: PLAIN}], "prompt_cache_key": "mine", "max_tokens": 7})
    shown = masked_request(WireRequest(url="https://h", headers={}, body=body.encode()))
    assert shown.body == body.replace(PLAIN, "*" * len(PLAIN))


@pytest.mark.parametrize("piece", [b'"\\', b'\\"', b'"a" :"', b'"', b'"a" '])
async def test_a_body_is_masked_in_a_time_like_its_size(piece: bytes) -> None:
    """With a search that begins again at each quote, one of these takes hours; the limit of a test ends it."""
    body = piece * 200_000
    assert len(masked_request(WireRequest(url="https://h", headers={}, body=body)).body) == len(body)


@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(0, 400), max_size=12), pieces=st.lists(st.integers(1, 27), max_size=4))
async def test_a_key_is_masked_however_chunks_and_deltas_cut_it(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], pieces: list[int]
) -> None:
    """The key stands in the answer's text, cut into deltas at any places, and the body into chunks."""
    path = tmp_path_factory.mktemp("recordings") / "r.jsonl"
    ends = sorted({0, *pieces, len(KEY)})
    whole = answer("it is ", *(KEY[start:end] for start, end in pairwise(ends)), ", ok")
    places = sorted({0, *(min(cut, len(whole)) for cut in cuts), len(whole)})
    body = [whole[start:end] for start, end in pairwise(places)]
    seen = await record(path, body)
    assert text_of(seen) == f"it is {KEY}, ok"
    replayed = await ask(ReplayTransport(*recorded(path)))
    assert text_of(replayed) == f"it is {'*' * len(KEY)}, ok"
    assert [len(chunk.data) for chunk in read_recording(path)[0].chunks] == [len(chunk) for chunk in body]


async def test_a_value_that_only_looks_like_a_key_stays_in_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    transport = RecordingTransport(ReplayTransport(Recording([answer("I am gpt-4o-2024-11-20")])), path)
    events = await ask(transport, extra_headers={"x-wanted": "gpt-4o-2024-11-20"})
    assert text_of(events) == text_of(await ask(ReplayTransport(*recorded(path)))) == "I am gpt-4o-2024-11-20"
    [exchange] = read_recording(path)
    assert exchange.request.headers["x-wanted"] == "***"


async def test_patterns_and_secrets_of_yours_are_masked_and_prompts_left_out(tmp_path: Path) -> None:
    written = await exchange_of(
        tmp_path / "r.jsonl",
        [b'{"a":"card 4111-1111", "b":"hunter2hunter2"}'],
        {},
        secrets=[Secret("hunter2hunter2")],
        patterns=[r"\d{4}-\d{4}"],
        request_bodies=False,
    )
    assert "4111" not in written
    assert "hunter2" not in written
    assert read_recording(tmp_path / "r.jsonl")[0].request.body == ""


# --- files that will not do ----------------------------------------------------------------------


async def test_what_cannot_be_written_or_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        RecordingTransport(ReplayTransport(), tmp_path / "no" / "r.jsonl")
    with pytest.raises(ConfigError, match="no regular expression"):
        RecordingTransport(ReplayTransport(), tmp_path / "r.jsonl", patterns=["("])
    with pytest.raises(ConfigError, match="cannot be read"):
        recorded(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("line", "words"),
    [(b"{}", "line 2 of .* is no recorded exchange"), (b"\xff", "line 2"), (b'{"version":9}', "line 2")],
)
async def test_a_line_that_is_no_exchange_is_named(tmp_path: Path, line: bytes, words: str) -> None:
    await record(tmp_path / "r.jsonl", [answer("hi")])
    with (tmp_path / "r.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(ConfigError, match=words):
        read_recording(tmp_path / "r.jsonl")


async def test_a_line_that_could_not_be_written_is_told_at_the_next_request(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    transport = RecordingTransport(ReplayTransport(Recording([answer("hi")])), tmp_path / "f" / "r.jsonl")
    (tmp_path / "f" / "r.jsonl").unlink()
    (tmp_path / "f").rmdir()
    assert text_of(await ask(transport)) == "hi"
    with pytest.raises(ConfigError, match="cannot be written"):
        await ask(transport)
