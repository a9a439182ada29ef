"""The pictures of the docs: `python tests/ui/screenshots.py` takes them anew. Look at them before you commit them."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from live_page import LivePage, live_page
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

from loomstream import events as e

IMAGES = Path(__file__).parents[2] / "docs" / "images"
ANSWER = """Light **bends** as it enters a raindrop, and each colour by a different amount.

1. Sunlight enters the drop and *refracts*.
2. It reflects off the back.
3. It leaves, spread out: `red` at 42°, `violet` at 40°.

| colour | angle | wavelength |
|---|---|---|
| red | 42° | 700 nm |
| violet | 40° | 400 nm |

```python
def angle(colour: str) -> float:
    return {"red": 42.0, "violet": 40.0}[colour]
```

You see it with the sun at your ba"""


def ask(tab: Any, server: LivePage) -> None:  # noqa: ANN401 (Playwright's page)
    tab.goto(server.entrance)
    tab.wait_for_selector("#model option", state="attached")
    tab.fill("#text", "Explain how a rainbow forms, with a table and a little code.")
    tab.click("#send")
    tab.wait_for_selector(".waiting")
    pieces = [ANSWER[start : start + 7] for start in range(0, len(ANSWER), 7)]
    server.give(
        e.Start("acme", "weaver-1"),
        e.ReasoningStart(0),
        e.ReasoningDelta(0, "They want the physics in short."),
        e.ReasoningEnd(0),
        e.TextStart(1),
        *(e.TextDelta(1, piece) for piece in pieces),
        e.Usage(input_tokens=21, output_tokens=148),
        e.Cost(provider="acme", model="weaver-1", amount_usd=Decimal("0.00231")),
    )
    tab.wait_for_selector("text=at your ba")
    tab.wait_for_timeout(400)


def page(browser: Any, name: str, **options: Any) -> None:  # noqa: ANN401 (Playwright's)
    with live_page() as server:
        context = browser.new_context(**options)
        tab = context.new_page()
        ask(tab, server)
        tab.screenshot(path=IMAGES / name)
        context.close()


def typed(command: list[str]) -> bytes:
    """Run a command on a terminal of its own; give all that it wrote there."""
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "96", "LINES": "30"}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=follower, stderr=follower, env=environment):
        os.close(follower)
        written = b""
        try:
            while piece := os.read(leader, 65536):
                written += piece
        except OSError:  # nobody has the other end any more
            return written
    return written


def terminal(browser: Any, name: str, command: list[str]) -> None:  # noqa: ANN401 (as above)
    shown = " ".join(f'"{word}"' if " " in word else word for word in command)
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nothing:
        console = Console(record=True, width=96, force_terminal=True, file=nothing)
        console.print(f"[bold green]$[/] {shown}")
        console.print(
            Text.from_ansi(typed([sys.executable, "-m", "loomstream", *command[1:]]).decode().replace("\r\n", "\n")),
            end="",
        )
        picture = Path(folder) / "terminal.svg"
        console.save_svg(str(picture), title="looms")
        tab = browser.new_page(viewport={"width": 1000, "height": 500})
        tab.goto(picture.as_uri())
        tab.locator("svg > rect").first.screenshot(path=IMAGES / name)
        tab.close()


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page(browser, "page-answer.png", viewport={"width": 1000, "height": 800})
        phone = {"viewport": {"width": 390, "height": 780}, "is_mobile": True, "has_touch": True}
        page(browser, "page-phone.png", color_scheme="dark", device_scale_factor=1.5, **phone)
        terminal(browser, "terminal.png", ["looms", "ask", "Write a haiku about rivers"])
        browser.close()


if __name__ == "__main__":
    main()
