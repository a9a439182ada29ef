"""Chat Completions streams: no chunk, however odd, gives an untyped end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from msgspec import Raw as RawJSON

from loomstream.accumulate import fold
from loomstream.dialects.openai_chat import calls as tool_calls
from loomstream.errors import (
    ServerFault,
    StreamTruncated,
)
from loomstream.events import (
    Citation,
    File,
    Notice,
    Opaque,
    ReasoningDelta,
    ReasoningEnd,
    ServerToolCall,
    ServerToolResult,
    Start,
    Stop,
    StopReason,
    TextDelta,
    ToolCallEnd,
    Unknown,
    Usage,
)

sys.path.insert(0, str(Path(__file__).parent))

from chat_streams import STOPPED, call_piece, chunk, decode, decode_failing, of, sse

# --- streams: the odd ones -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("function_call", "tool_use"),
        ("content_filter", "content_filter"),
        ("model_length", "context_window"),
        ("eos", "end_turn"),
        ("stop_sequence", "stop_sequence"),
        ("refusal", "refusal"),
        ("abort", "other"),
    ],
)
def test_finish_reasons_in_one_vocabulary(raw: str, reason: StopReason) -> None:
    assert decode(sse(chunk({"content": "a"}), chunk(None, raw)))[-1] == Stop(reason, raw)


def test_what_comes_after_the_finish_reason_is_kept_and_closed() -> None:
    events = decode(sse(chunk({"content": "a"}, "stop"), chunk({"content": "b"})))
    assert fold(events).text == "ab"
    late_call = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]}
    events = decode(sse(chunk({"content": "a"}, "stop"), chunk(late_call)))
    assert [call.name for call in fold(events).tool_calls] == ["f"]


def test_a_whole_message_in_a_chunk_counts_where_no_delta_came() -> None:
    whole = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]}
    assert fold(decode(sse(whole))).text == "a"


def test_a_whole_message_that_repeats_the_deltas_is_not_said_twice() -> None:
    repeated = {"choices": [{"index": 0, "message": {"content": "ab"}, "finish_reason": "stop"}]}
    assert fold(decode(sse(chunk({"content": "a"}), chunk({"content": "b"}), repeated))).text == "ab"


def test_an_empty_finish_reason_is_none() -> None:
    events, _ = decode_failing(sse(chunk({"content": "a"}, ""), done=False), StreamTruncated)
    assert fold(events).text == "a"


def test_choices_grow_side_by_side() -> None:
    events = decode(
        sse(
            chunk({"content": "a"}, index=1),
            chunk({"content": "b"}),
            chunk({"content": "c"}, index=1),
            chunk(None, "length", index=1),
            STOPPED,
        )
    )
    assert [(choice.index, choice.message.text) for choice in fold(events).choices] == [(0, "b"), (1, "ac")]
    assert Notice("warning", "choice 1 stopped: length") in events
    assert events[-1] == Stop("end_turn", "stop")


def test_done_ends_choices_that_never_finished_once_the_first_has() -> None:
    events = decode(sse(chunk({"content": "a"}, index=1), chunk({"content": "b"}, "stop")))
    assert fold(events).choices[1].message.text == "a"


def test_without_done_every_choice_must_have_finished() -> None:
    body = sse(chunk({"content": "a"}, index=1), chunk({"content": "b"}, "stop"), done=False)
    decode_failing(body, StreamTruncated)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"data: [DONE]\n\n", "before the first chunk"),
        (sse({"usage": None}, done=False), "before the first chunk"),
        (sse(chunk({"content": "a"})), "DONE.* without a finish_reason"),
        (sse(chunk({"content": "a"}), done=False), "before a finish_reason"),
    ],
)
def test_a_truncated_stream_says_what_is_missing(body: bytes, what: str) -> None:
    _, error = decode_failing(body, StreamTruncated)
    assert error.provider == "openai"
    with pytest.raises(StreamTruncated, match=what):
        raise error


def test_usage_that_came_before_a_truncation_is_kept_only_once() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    events, _ = decode_failing(sse(chunk({"content": "a"}, usage=usage), done=False), StreamTruncated)
    assert [event.input_tokens for event in of(Usage, events)] == [3]


def test_usage_after_the_end_is_kept_when_an_error_follows() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    error = {"error": {"message": "broken"}}
    events, raised = decode_failing(sse(chunk({"content": "a"}, "stop"), usage, error), ServerFault)
    assert [event.output_tokens for event in of(Usage, events)] == [1]
    assert "broken" in str(raised)


def test_usage_in_x_groq_counts() -> None:
    groq = chunk(None, "stop", x_groq={"id": "req_1", "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    assert fold(decode(sse(chunk({"content": "a"}), groq))).usage == Usage(
        input_tokens=3, output_tokens=1, final=True, raw=RawJSON(b'{"prompt_tokens":3,"completion_tokens":1}')
    )


def test_x_groq_without_usage_is_no_usage() -> None:
    assert fold(decode(sse(chunk({"content": "a"}, "stop", x_groq={"id": "req_1"})))).usage is None


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 2}, (5, 2, 0, 0)),
        ({"input_tokens": 5, "output_tokens": 2}, (5, 2, 0, 0)),
        ({"prompt_tokens": 5, "total_tokens": 7}, (5, 2, 0, 0)),
        ({"completion_tokens": 2, "total_tokens": 7}, (5, 2, 0, 0)),
        ({"total_tokens": 7}, (7, 0, 0, 0)),
        ({"completion_tokens": 9, "total_tokens": 7}, (0, 9, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_cache_hit_tokens": 4}, (1, 2, 4, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "cached_tokens": 9}, (0, 2, 9, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "reasoning_tokens": 1}, (5, 2, 0, 1)),
        ({"prompt_tokens": -5, "completion_tokens": 2}, (0, 2, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 9, "reasoning_tokens": 2}, (5, 4, 0, 2)),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 2,
                "total_tokens": 9,
                "prompt_tokens_details": {"audio_tokens": 2},
            },
            (7, 2, 0, 0),
        ),
    ],
)
def test_usage_in_one_convention(wire: dict[str, object], expected: tuple[int, ...]) -> None:
    usage = fold(decode(sse(chunk({"content": "a"}, "stop"), {"choices": [], "usage": wire}))).usage
    assert usage is not None
    counts = (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.reasoning_tokens)
    assert counts == expected
    assert usage.final
    assert json.loads(bytes(usage.raw)) == wire


@pytest.mark.parametrize("wire", [{}, {"a": 1}, [], "free", {"prompt_tokens": None}, {"prompt_tokens": "many"}])
def test_usage_without_counts_is_no_usage(wire: object) -> None:
    events = decode(sse(chunk({"content": "a"}, "stop"), {"choices": [], "usage": wire}))
    assert fold(events).usage is None


def test_usage_before_the_first_chunk_waits_for_the_start() -> None:
    early = {"choices": [], "usage": {"prompt_tokens": 1.0, "completion_tokens": 0}}
    events = decode(sse(early, chunk({"content": "a"}, "stop")))
    assert isinstance(events[0], Start)
    assert events[1] == Notice("warning", "mistyped usage field prompt_tokens")
    assert fold(events).usage is not None


def test_an_unknown_frame_is_kept_and_the_first_waits_for_the_start() -> None:
    events = decode(sse({"hello": 1}, chunk({"content": "a"}, "stop"), {"object": "obscure"}))
    assert [event.data for event in of(Unknown, events)] == ['{"hello": 1}', '{"object": "obscure"}']
    assert isinstance(events[0], Start)


def test_frames_that_each_think_and_speak_lose_no_thought() -> None:
    delta = {"reasoning_content": "hm", "content": "one"}
    events = decode(sse(chunk(delta), chunk({**delta, "content": "two"}), STOPPED))
    assert [event.text for event in of(ReasoningDelta, events)] == ["hm", "hm"]
    assert [event.text for event in of(TextDelta, events)] == ["one", "two"]


def test_reasoning_details_are_joined_by_type_and_index() -> None:
    pieces = [
        [{"type": "reasoning.text", "text": "a", "index": 0, "signature": None}],
        [{"type": "reasoning.text", "text": "b", "index": 0, "signature": "s"}],
        [{"type": "reasoning.encrypted", "data": "x", "index": 1, "id": "r1"}],
        [{"type": "reasoning.encrypted", "data": "y", "index": 1, "id": "r2"}],
        [{"type": "reasoning.summary", "summary": "c", "index": 2}],
        "no list",
        [],
    ]
    events = decode(sse(*(chunk({"reasoning_details": piece}) for piece in pieces), STOPPED))
    assert fold(events).reasoning == "abc"
    (opaque,) = of(ReasoningEnd, events)[0].opaque
    assert (opaque.issuer, opaque.kind) == ("openai", "details")
    assert json.loads(opaque.data) == [
        {"type": "reasoning.text", "text": "ab", "index": 0, "signature": "s"},
        {"type": "reasoning.encrypted", "data": "x", "index": 1, "id": "r1"},
        {"type": "reasoning.encrypted", "data": "y", "index": 1, "id": "r2"},
        {"type": "reasoning.summary", "summary": "c", "index": 2},
    ]


def test_a_detail_s_fields_are_kept_in_their_order_and_odd_ones_replace() -> None:
    items = [
        {"type": "t", "text": "a", "n": None, "index": 0},
        {"type": "t", "text": "b", "n": 1, "index": 0, "data": "d"},
        {"type": "t", "text": 7, "index": 0, "data": "e", "n": None},
        {"type": "t", "text": "c", "index": 0},
    ]
    events = decode(sse(*[chunk({"reasoning_details": [item]}) for item in items], STOPPED))
    (end,) = of(ReasoningEnd, events)
    assert end.opaque[0].data == '[{"type":"t","text":"c","n":1,"index":0,"data":"de"}]'


def test_reasoning_without_text_is_kept_for_its_details() -> None:
    events = decode(sse(chunk({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}), STOPPED))
    assert fold(events).reasoning == ""
    assert len(of(ReasoningEnd, events)[0].opaque) == 1


def test_thinking_and_text_parts() -> None:
    parts: list[object] = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "signature": "s"},
        {"type": "thinking", "thinking": "m"},
        {"type": "thinking", "thinking": []},
        {"type": "thinking"},
        {"type": "thinking", "signature": "t"},
        {"type": "text", "text": "a"},
        {"type": "text", "text": ""},
        {"text": "b"},
        {"type": "resource"},
        "odd",
    ]
    events = decode(sse(chunk({"content": parts}), STOPPED))
    response = fold(events)
    assert (response.reasoning, response.text) == ("hmm", "ab")
    assert [opaque.data for opaque in of(ReasoningEnd, events)[0].opaque] == ["s", "t"]
    assert [event.data for event in of(Unknown, events)] == ['{"type": "resource"}', '"odd"']


def test_a_part_that_refers_to_a_source_cites_the_text() -> None:
    parts: list[object] = [
        {"type": "text", "text": "a"},
        {"type": "reference", "reference_ids": [1, 4]},
        {"type": "tool_reference", "tool": "web_search", "title": "A", "url": "https://a"},
        {"type": "text", "text": "b"},
    ]
    events = decode(sse(chunk({"content": parts}), STOPPED), "mistral")
    first, second = of(Citation, events)
    assert (first.index, json.loads(bytes(first.raw))["reference_ids"]) == (0, [1, 4])
    assert (second.index, second.url, second.title) == (0, "https://a", "A")
    assert fold(events).text == "ab"
    assert not of(Unknown, events)


@pytest.mark.parametrize("image", ["data:image/png;base64,iVA=", {"url": "data:image/png;base64,iVA="}])
def test_a_part_that_is_an_image_is_a_file_between_the_texts(image: object) -> None:
    parts: list[object] = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": image},
        {"type": "text", "text": "b"},
    ]
    events = decode(sse(chunk({"content": parts}), STOPPED), "mistral")
    (file,) = of(File, events)
    assert (file.index, file.media_type, file.data) == (1, "image/png", b"\x89P")
    assert [type(block).__name__ for block in fold(events).message.content] == ["Text", "FileBlock", "Text"]


def test_usage_inside_a_finished_choice_counts() -> None:
    finished = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    events = decode(sse(chunk({"content": "a"}), {"choices": [finished]}), "moonshot")
    (usage,) = of(Usage, events)
    assert (usage.input_tokens, usage.output_tokens, usage.final) == (3, 1, True)
    without = {**finished, "usage": None}
    assert not of(Usage, decode(sse(chunk({"content": "a"}), {"choices": [without]}), "moonshot"))


def test_what_a_filter_says_of_the_prompt_and_the_text_is_no_content() -> None:
    safe = {"hate": {"filtered": False, "severity": "safe"}}
    events = decode(
        sse(
            {"choices": [], "id": "", "model": "", "prompt_filter_results": [{"prompt_index": 0, "x": safe}]},
            {"id": "chatcmpl-1", "model": "m-1", "choices": [{"index": 0, "content_filter_results": {}}]},
            chunk({"content": "a"}),
            {"choices": [{"index": 0, "content_filter_results": safe, "content_filter_offsets": {"start_offset": 0}}]},
            STOPPED,
            {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}},
        ),
        "azure-openai",
    )
    assert [type(event).__name__ for event in events] == ["Start", "TextStart", "TextDelta", "TextEnd", "Usage", "Stop"]
    assert events[0] == Start("azure-openai", "m-1", "chatcmpl-1")


def test_a_filter_that_cuts_the_text_afterwards_says_so() -> None:
    cut = {"index": 0, "finish_reason": "content_filter", "content_filter_results": {"hate": {"filtered": True}}}
    events = decode(sse(chunk({"content": "a"}), {"choices": [cut]}), "azure-openai")
    assert events[-1] == Stop("content_filter", "content_filter")


def test_a_thought_signature_beside_the_content_is_kept() -> None:
    google = {"google": {"thought_signature": "sig"}}
    events = decode(sse(chunk({"content": "a", "extra_content": google}), STOPPED))
    assert of(ReasoningEnd, events)[0].opaque == (Opaque("openai", "signature", "sig"),)
    assert not of(ReasoningEnd, decode(sse(chunk({"content": "a", "extra_content": {"google": {}}}), STOPPED)))


def test_a_refusal_alone_is_the_reason_and_beside_text_is_not() -> None:
    refused = decode(sse(chunk({"refusal": "I "}), chunk({"refusal": "cannot"}), STOPPED))
    assert fold(refused).refusal == "I cannot"
    assert refused[-1] == Stop("refusal", "stop")
    both = decode(sse(chunk({"content": "a", "refusal": "b"}), STOPPED))
    assert both[-1] == Stop("end_turn", "stop")


def calls_of(*deltas: object, finish: str = "tool_calls") -> list[tuple[str, str, str, bool]]:
    events = decode(sse(*(chunk({"tool_calls": pieces}) for pieces in deltas), chunk(None, finish)))
    return [(event.id, event.name, event.arguments, event.executable) for event in of(ToolCallEnd, events)]


def test_no_calls_are_none() -> None:
    events = decode(sse(chunk({"content": "a", "tool_calls": []}), chunk({"content": "b"}), STOPPED))
    assert [type(event).__name__ for event in events[1:5]] == ["TextStart", "TextDelta", "TextDelta", "TextEnd"]


def test_a_call_without_an_id_is_given_one() -> None:
    assert calls_of([call_piece(0, "f", "{}")]) == [("call_0", "f", "{}", True)]


def test_a_number_for_an_id_is_read_as_text() -> None:
    assert calls_of([call_piece(0, "f", "{}", 7)]) == [("7", "f", "{}", True)]


def test_a_call_that_never_had_a_name_is_still_a_call() -> None:
    assert calls_of([call_piece(0, None, '{"a":')], [call_piece(0, "", "1}")]) == [("call_0", "", '{"a":1}', True)]


def test_whole_calls_without_an_index_are_kept_apart() -> None:
    pieces = [call_piece(None, "f", '{"a":1}', "x"), call_piece(None, "g", "{}", "y"), call_piece(None, "h", "{}")]
    assert [name for _, name, _, _ in calls_of(pieces)] == ["f", "g", "h"]


def test_pieces_without_an_index_join() -> None:
    assert calls_of(
        [call_piece(None, "f", '{"a"', "x")], [call_piece(None, None, ":1}")], [call_piece(None, "f", "", "x")]
    ) == [("x", "f", '{"a":1}', True)]


def test_another_call_under_the_index_of_an_open_one() -> None:
    assert calls_of([call_piece(0, "f", "{}", "x")], [call_piece(0, "g", "{}", "y")]) == [
        ("x", "f", "{}", True),
        ("y", "g", "{}", True),
    ]


def test_another_call_under_the_index_of_one_without_a_name() -> None:
    calls = calls_of([call_piece(0, None, '{"a":1}', "x")], [call_piece(0, "g", "{}", "y")])
    assert [(name, arguments) for _, name, arguments, _ in calls] == [("", '{"a":1}'), ("g", "{}")]


def test_the_same_call_again_without_an_id_is_a_new_one_once_the_first_is_whole() -> None:
    calls = calls_of([call_piece(0, "f", "{}")], [call_piece(0, "f", '{"b":2}')])
    assert [(name, arguments) for _, name, arguments, _ in calls] == [("f", "{}"), ("f", '{"b":2}')]


@pytest.mark.parametrize(
    ("pieces", "arguments"),
    [
        (['{"a":"', "}", '"}', "{}"], ['{"a":"}"}', "{}"]),
        (['{"a":"\\', '"}', '"}', " ", "{}"], ['{"a":"\\"}"}', " {}"]),
        (['{"a":{', "}", "}", "{}"], ['{"a":{}}', "{}"]),
        (['{"a":1}', "x", "{}"], ['{"a":1}', "x{}"]),
        (['{"a":1', ",}", "{}"], ['{"a":1,}{}']),
        (["}", "{}"], ["}{}"]),
    ],
)
def test_a_repeated_name_begins_another_call_once_the_arguments_are_whole(
    pieces: list[str], arguments: list[str]
) -> None:
    calls = calls_of(*[[call_piece(0, "f", piece)] for piece in pieces])
    assert [call[2] for call in calls] == arguments


def test_growing_arguments_are_read_once_however_often_the_name_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    is_object = tool_calls.is_object
    monkeypatch.setattr(tool_calls, "is_object", lambda text: read.append(len(text)) or is_object(text))
    pieces = ['{"a":"', *["x"] * 500, '"}', *[" "] * 100]
    calls_of(*[[call_piece(0, "f", piece)] for piece in pieces])
    assert read == [len('{"a":""}') + 500]


@pytest.mark.parametrize("arguments", [None, ""])
def test_no_arguments_are_an_empty_object(arguments: object) -> None:
    assert calls_of([call_piece(0, "f", arguments, "x")]) == [("x", "f", "{}", True)]


def test_arguments_that_are_an_object_are_its_text() -> None:
    assert calls_of([call_piece(0, "f", {"a": [1.0]}, "x")]) == [("x", "f", '{"a": [1.0]}', True)]


@pytest.mark.parametrize("finish", ["length", "model_length"])
def test_a_call_cut_by_a_token_limit_must_not_be_run(finish: str) -> None:
    assert calls_of([call_piece(0, "f", "", "x")], finish=finish) == [("x", "f", "{}", False)]
    assert calls_of([call_piece(0, "f", "{}", "x")], finish=finish) == [("x", "f", "{}", True)]


@pytest.mark.parametrize(
    ("custom", "expected"),
    [
        ({"name": "f", "input": "text"}, ("f", "text")),
        (None, ("", "{}")),
        (7, ("", "{}")),
        ({"name": 3}, ("", "{}")),
        ({}, ("", "{}")),
    ],
)
def test_a_custom_call_s_text_stands_for_its_arguments(custom: object, expected: tuple[str, str]) -> None:
    ((_, name, arguments, _),) = calls_of([{"index": 0, "id": "x", "custom": custom}])
    assert (name, arguments) == expected


def test_the_older_function_call() -> None:
    pieces = [{"name": "f", "arguments": ""}, {"arguments": '{"a"'}, {"arguments": ":1}"}, {"name": None}]
    events = decode(sse(*(chunk({"function_call": piece}) for piece in pieces), chunk(None, "function_call")))
    assert [(event.name, event.arguments) for event in of(ToolCallEnd, events)] == [("f", '{"a":1}')]
    assert events[-1] == Stop("tool_use", "function_call")
    assert not of(ToolCallEnd, decode(sse(chunk({"content": "a", "function_call": {}}), STOPPED)))


def test_annotations_cite_the_text_and_open_one_where_there_is_none() -> None:
    annotation = {
        "type": "url_citation",
        "url_citation": {"url": "https://a", "title": "A", "content": "c", "start_index": 1, "end_index": 2},
    }
    late = decode(sse(chunk({"content": "a"}), chunk({"annotations": [annotation, "odd"]}), STOPPED))
    first, odd = of(Citation, late)
    assert (first.url, first.title, first.cited_text, first.start, first.end) == ("https://a", "A", "c", 1, 2)
    assert (odd.url, odd.start) == ("", None)
    early = decode(sse(chunk({"reasoning": "hm"}), chunk({"annotations": [annotation]}), STOPPED))
    assert of(Citation, early)[0].index == 1


@pytest.mark.parametrize("offset", [True, 1.5, "1", None])
def test_an_offset_that_is_no_whole_number_is_left_out(offset: object) -> None:
    item = {"type": "url_citation", "url_citation": {"url": "u", "start_index": offset, "end_index": offset}}
    (citation,) = of(Citation, decode(sse(chunk({"content": "a", "annotations": [item]}), STOPPED)))
    assert (citation.start, citation.end) == (None, None)


def test_sources_are_cited_at_the_end_and_nowhere_without_a_text() -> None:
    sources = {"citations": ["https://a"], "search_results": [{"url": "https://b", "snippet": "s"}]}
    cited = of(Citation, decode(sse(chunk({"content": "a"}, **sources), STOPPED)))
    assert [(citation.url, citation.cited_text) for citation in cited] == [("https://b", "s")]
    assert not of(Citation, decode(sse(chunk({"reasoning": "a"}, **sources), STOPPED)))
    assert not of(Citation, decode(sse(chunk({"content": "a"}, citations=None, search_results=None), STOPPED)))


def test_tools_that_the_provider_ran() -> None:
    running = {"executed_tools": [{"type": "search", "index": 4, "arguments": '{"q":1}'}]}
    ran = {"executed_tools": [{"type": "search", "index": 4, "output": "found"}, {"type": "python", "output": None}]}
    events = decode(sse(chunk(running), chunk(ran), chunk({"executed_tools": "odd"}), STOPPED))
    calls, (result,) = of(ServerToolCall, events), of(ServerToolResult, events)
    assert [(call.id, call.name, call.arguments) for call in calls] == [
        ("executed_0_4", "search", '{"q":1}'),
        ("executed_0_1", "python", "{}"),
    ]
    assert (result.tool_call_id, bytes(result.content)) == ("executed_0_4", b'"found"')


def test_tools_of_two_choices_are_kept_apart() -> None:
    ran = {"executed_tools": [{"type": "search", "index": 0}]}
    events = decode(sse(chunk(ran), chunk(ran, index=1), chunk(None, "stop", index=1), STOPPED))
    assert [(call.id, call.choice) for call in of(ServerToolCall, events)] == [("executed_0_0", 0), ("executed_1_0", 1)]


@pytest.mark.parametrize(
    ("delta", "file"),
    [
        ({"images": [{"image_url": {"url": "data:image/png;base64,iVA="}}]}, ("image/png", b"\x89P", "")),
        ({"images": [{"image_url": {"url": "https://x"}}]}, ("image", b"", "https://x")),
        (
            {"images": [{"image_url": {"url": "data:image/png;base64,%%"}}]},
            ("image/png", b"", "data:image/png;base64,%%"),
        ),
        ({"images": [{"image_url": {"url": "data:odd"}}]}, ("image", b"", "data:odd")),
        ({"images": ["odd"]}, ("image", b"", "")),
        ({"images": None, "audio": {"id": "a", "data": "aGk="}}, ("audio", b"hi", "")),
        ({"images": [{"image_url": {"url": "data:a/b;base64,é"}}]}, ("a/b", b"", "data:a/b;base64,é")),
    ],
)
def test_files(delta: dict[str, object], file: tuple[str, bytes, str]) -> None:
    (made,) = of(File, decode(sse(chunk(delta), STOPPED)))
    assert (made.media_type, made.data, made.url) == file


def test_null_files_are_none() -> None:
    assert not of(File, decode(sse(chunk({"content": "a", "images": None, "audio": None}), STOPPED)))
