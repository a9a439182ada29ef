from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loomstream.dialects.cache_points import MOST, Breakpoint, Slots, Wanted, planned
from loomstream.messages import CachePoint, CacheTTL

TTLS: st.SearchStrategy[CacheTTL] = st.sampled_from(["5m", "1h"])
POINTS = st.builds(Breakpoint, st.integers(0, 12), TTLS)


def five(*slots: int) -> list[Breakpoint]:
    return [Breakpoint(slot, "5m") for slot in slots]


@given(
    st.builds(
        Wanted,
        st.lists(POINTS, max_size=9),
        st.lists(st.integers(0, 12), max_size=4, unique=True),
        TTLS,
        st.integers(0, 5),
        TTLS,
    )
)
def test_what_is_planned_is_what_the_api_takes(wanted: Wanted) -> None:
    points, warnings = planned(wanted)
    slots = [point.slot for point in points]
    assert len(points) <= MOST
    assert slots == sorted(set(slots))
    assert set(slots) <= {slot for slot, _ in wanted.own} | set(wanted.automatic)
    times = [point.ttl for point in points]
    assert "1h" not in times[times.index("5m") :] if "5m" in times else True
    assert wanted.longest == "1h" or "1h" not in times
    asked = {slot for slot, _ in wanted.own}
    if len(asked) > MOST or any(ttl == "1h" and Breakpoint(slot, "1h") not in points for slot, ttl in wanted.own):
        assert warnings


@pytest.mark.parametrize(
    ("own", "head", "kept"),
    [
        ([1, 2, 3, 4], 0, [1, 2, 3, 4]),
        ([1, 2, 3, 4, 5, 6], 0, [3, 4, 5, 6]),
        ([0, 1, 5, 6, 7, 8], 2, [0, 1, 7, 8]),
        ([0, 1, 2, 3, 4, 9], 5, [1, 2, 3, 4]),
    ],
)
def test_of_too_many_the_first_sections_and_then_the_last_ones_stay(own: list[int], head: int, kept: list[int]) -> None:
    points, warnings = planned(Wanted(five(*own), head=head))
    assert points == five(*kept)
    left_out = len(own) - len(kept)
    assert warnings == ([f"{left_out} of {len(own)} cache points are not sent: a request takes 4"] if left_out else [])


def test_an_hour_stands_before_five_minutes() -> None:
    own = [Breakpoint(1, "1h"), Breakpoint(2, "5m"), Breakpoint(3, "1h")]
    points, warnings = planned(Wanted(own))
    assert points == [Breakpoint(1, "1h"), Breakpoint(2, "5m"), Breakpoint(3, "5m")]
    assert warnings == ["a cache point of 1h behind one of 5m is sent as one of 5m: longer ones must stand first"]


def test_of_two_points_behind_one_block_the_longer_one_counts() -> None:
    assert planned(Wanted([Breakpoint(1, "5m"), Breakpoint(1, "1h"), Breakpoint(1, "5m")])) == (
        [Breakpoint(1, "1h")],
        [],
    )


def test_a_model_without_an_hour() -> None:
    points, warnings = planned(Wanted([Breakpoint(1, "1h")], [2], "1h", longest="5m"))
    assert points == five(1, 2)
    assert warnings == [
        "a cache point of 1h is sent as one of 5m: this model has none",
        "cache_prompt 1h is sent as 5m: this model knows no longer one",
    ]


def test_automatic_points_fill_what_is_left_and_fit_in() -> None:
    own = [Breakpoint(2, "1h"), Breakpoint(5, "1h"), Breakpoint(6, "5m")]
    points, warnings = planned(Wanted(own, [8, 2, 1], "5m"))
    assert points == [Breakpoint(2, "1h"), Breakpoint(5, "1h"), Breakpoint(6, "5m"), Breakpoint(8, "5m")]
    assert warnings == []
    points, warnings = planned(Wanted(own[:2], [1], "5m"))
    assert points[0] == Breakpoint(1, "1h")
    assert warnings == ["cache_prompt 5m is sent as 1h where the request's own cache points leave no other"]
    points, warnings = planned(Wanted(own[2:], [8], "1h"))
    assert points == five(6, 8)
    assert warnings == ["cache_prompt 1h is sent as 5m where the request's own cache points leave no other"]


def test_slots() -> None:
    slots: Slots[str] = Slots()
    slots.point(CachePoint())
    for section, blocks in (("tools", "t"), ("system", "s"), ("user", "ab"), ("assistant", "c"), ("user", "d")):
        for block in blocks:
            slots.add(block)
        slots.end(section)
    slots.add("e")
    slots.end("user", joined=True)
    slots.skip()
    slots.point(CachePoint("1h"))
    assert slots.breakpoints(None, "1h") == [("e", "1h")]
    assert slots.breakpoints("1h", "1h") == [("t", "1h"), ("s", "1h"), ("b", "1h"), ("e", "1h")]
    assert slots.warnings == [
        "a cache point is not sent: nothing that can be cached stands before it",
        "a cache point behind reasoning is sent before it: reasoning cannot carry one",
    ]


def test_nothing_to_cache_is_told() -> None:
    slots: Slots[str] = Slots()
    assert slots.breakpoints("5m", "1h") == []
    assert slots.warnings == ["cache_prompt is not sent: this model has no cache for what the request holds"]
