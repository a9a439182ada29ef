# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
"""Token probabilities on Gemini's wire, beside `tests/streams/gemini/logprobs`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from goldens import Goldens, Outcome, frame, message_of, split, sse_frames

from loomstream.accumulate import fold
from loomstream.dialects import Target
from loomstream.dialects import gemini as dialect
from loomstream.events import Logprobs, Notice, TokenLogprob
from loomstream.messages import Text
from loomstream.testing import check_order

TARGET = Target(provider="gemini", model="m", base_url="https://host.example/v1beta")
GOLDENS = Goldens(dialect, TARGET, "gemini", sse_frames, after=frame({}))


def token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "tokenId": 7, "logProbability": logprob}


def candidate(part: dict[str, Any], result: Any, **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [part]}, "logprobsResult": result, **more}]}


def streamed(*chunks: dict[str, Any]) -> Outcome:
    outcome = GOLDENS.translate([frame(chunk) for chunk in chunks])
    check_order(outcome[0], complete=outcome[1] is None)
    return outcome


def test_a_whole_answer_has_the_probabilities_of_the_stream() -> None:
    chosen, top = [token("Ti", -0.5), token("de", -1.0)], [{"candidates": [token("Ti", -0.5)]}, {}]
    end = {"usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2}}
    whole = {
        **candidate({"text": "Tide"}, {"chosenCandidates": chosen, "topCandidates": top}, finishReason="STOP"),
        **end,
    }
    events, error = split(dialect.parse_response(json.dumps(whole).encode(), TARGET))
    assert error is None
    pieces = [
        candidate({"text": "Ti"}, {"chosenCandidates": chosen[:1], "topCandidates": top[:1]}),
        {**candidate({"text": "de"}, {"chosenCandidates": chosen[1:]}, finishReason="STOP"), **end},
    ]
    assert fold(events) == fold(streamed(*pieces)[0])
    expected = (TokenLogprob("Ti", -0.5, (("Ti", -0.5),)), TokenLogprob("de", -1.0))
    assert fold(events).message.content == (Text("Tide", logprobs=expected),)


def test_each_candidate_has_its_own() -> None:
    pieces = [
        candidate({"text": text}, {"chosenCandidates": [token(text, -1)]}, index=index)
        for index, text in enumerate("ab")
    ]
    chunk = {"candidates": [{**piece["candidates"][0], "finishReason": "STOP"} for piece in pieces]}
    events, _ = streamed(chunk)
    assert [(event.index, event.tokens[0].token) for event in events if isinstance(event, Logprobs)] == [
        (0, "a"),
        (1, "b"),
    ]


@pytest.mark.parametrize(
    ("part", "result"),
    [
        ({"functionCall": {"name": "f"}}, {"chosenCandidates": [token("f", -1)]}),
        ({"text": "a"}, {"chosenCandidates": [{"token": 1}]}),
        ({"text": "a"}, [1]),
    ],
)
def test_probabilities_that_belong_to_no_text_are_told_once(part: dict[str, Any], result: Any) -> None:
    events, error = streamed(candidate(part, result), candidate(part, result, finishReason="STOP"))
    assert error is None
    assert not any(isinstance(event, Logprobs) for event in events)
    [notice] = [event for event in events if isinstance(event, Notice)]
    assert notice.detail == "token probabilities that belong to no text, or cannot be read, are left out"


@pytest.mark.parametrize("result", [None, {}, {"chosenCandidates": []}, {"topCandidates": [{}]}])
def test_none_at_all_are_no_matter(result: Any) -> None:
    events, _ = streamed(candidate({"text": "a"}, result, finishReason="STOP"))
    assert not any(isinstance(event, Logprobs | Notice) for event in events)


def test_damaged_probabilities_cost_nothing_else() -> None:
    whole, _ = GOLDENS.translate(GOLDENS.respelt("logprobs"))
    places = 0
    for path, (events, error) in GOLDENS.damage("logprobs"):
        if "logprobsResult" in path:
            places += 1
            assert error is None
            assert message_of(events) == message_of(whole)
    assert places > 50
