from decimal import Decimal

import msgspec
import pytest

from loomstream.cli.answer import Answer, report, statistics, tokens_per_second
from loomstream.errors import RateLimited, StreamTruncated
from loomstream.events import Cost, Stop, Usage
from loomstream.messages import Response, Timing

USAGE = Usage(input_tokens=7, output_tokens=20, final=True)
TIMING = Timing(first_event_s=0.5, first_text_s=0.5, total_s=2.5)


def cost(amount: str | None, *, provider: str = "openai", exact: bool = True) -> Cost:
    return Cost(provider=provider, model="m", amount_usd=None if amount is None else Decimal(amount), exact=exact)


def an_answer(
    *,
    usage: Usage | None = USAGE,
    money: Cost | None = None,
    stop: Stop | None = Stop("end_turn"),  # noqa: B008 (frozen)
    timing: Timing = TIMING,  # (frozen)
) -> Answer:
    return Answer(response=Response(usage=usage, cost=money or cost(None), stop=stop), timing=timing)


def test_the_line_tells_time_speed_tokens_and_cost() -> None:
    assert statistics(an_answer(money=cost("0.5"))) == "0.50 s to first event · 10.0 tokens/s · 7 in, 20 out · $0.5000"


@pytest.mark.parametrize(
    ("money", "shown"),
    [
        (cost(None), "cost unknown"),
        (cost("0", provider="local"), "$0.0000 (local)"),
        (cost("0", provider="ollama"), "$0.0000 (local)"),
        (cost("0", provider="openrouter"), "$0.0000 (free)"),
        (cost("0.00001234"), "$0.000012"),
        (cost("1.2345", exact=False), "about $1.2345"),
        (cost("0", provider="a-stranger"), "$0.0000 (free)"),
    ],
)
def test_cost_is_told_as_it_is_known(money: Cost, shown: str) -> None:
    assert statistics(an_answer(money=money)).endswith(" · " + shown)


def test_caches_reasoning_and_the_reason_to_stop_are_told() -> None:
    usage = Usage(input_tokens=1, output_tokens=5, cache_read_tokens=2, cache_write_tokens=3, reasoning_tokens=4)
    line = statistics(an_answer(usage=usage, stop=Stop("max_tokens")))
    assert "1 in, 2 cache read, 3 cache write, 5 out (4 reasoning)" in line
    assert line.endswith("stopped: max_tokens")


def test_what_is_not_known_is_said_so() -> None:
    line = statistics(an_answer(usage=None, stop=None))
    assert line == "0.50 s to first event · usage unknown · cost unknown · not whole"
    line = statistics(an_answer(timing=Timing(total_s=1.0)))
    assert line == "no event · 7 in, 20 out · cost unknown"


def test_where_nothing_came_there_is_no_line() -> None:
    assert statistics(an_answer(usage=None, stop=None, timing=Timing(total_s=1.0))) == ""
    assert statistics(Answer()) == ""


@pytest.mark.parametrize(
    ("tokens", "duration_s", "speed"),
    [(5, 0.0625, 80.0), (4, 0.0625, None), (5, 0.046875, None), (1000, 0.0, None), (0, 2.0, None), (20, 2.0, 10.0)],
)
def test_speed_is_told_only_where_enough_came_to_tell(tokens: int, duration_s: float, speed: float | None) -> None:
    usage = Usage(input_tokens=7, output_tokens=tokens, final=True)
    answer = an_answer(usage=usage, timing=Timing(first_event_s=2.0, first_text_s=2.0, total_s=2.0 + duration_s))
    assert tokens_per_second(answer) == speed
    assert ("tokens/s" in statistics(answer)) == (speed is not None)


def test_the_report_holds_the_error_and_what_came_before() -> None:
    failed = RateLimited("slow down", status=429, code="rate", retry_after_s=20.0, provider="openai")
    answer = Answer(response=Response(), timing=TIMING, error=failed)
    made = msgspec.json.decode(msgspec.json.encode(report(answer)))
    assert made["complete"] is False
    assert made["response"]["stop"] is None
    error = made["error"]
    assert (error["type"], error["exit_code"], error["status"], error["code"]) == ("RateLimited", 6, 429, "rate")
    assert (error["retry_safety"], error["retry_after_s"]) == ("yes", 20.0)


def test_an_error_that_no_provider_sent_has_no_status() -> None:
    error = report(Answer(error=StreamTruncated("cut"))).error
    assert error is not None
    assert (error.status, error.code, error.exit_code) == (None, None, 8)
