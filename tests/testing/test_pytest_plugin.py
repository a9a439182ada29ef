"""The plugin's fixtures, as a project that installs loomstream sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from loomstream.model import Model
from loomstream.testing import scripted_model, text_events
from loomstream.testing.scripted import ScriptedModel

PLUGIN = "loomstream.testing.pytest_plugin"


@pytest.mark.anyio
async def test_the_scripted_model(loomstream_scripted: Callable[..., ScriptedModel]) -> None:
    assert loomstream_scripted is scripted_model
    assert (await loomstream_scripted(text_events("a")).complete("x")).text == "a"


@pytest.mark.anyio
async def test_the_replay(loomstream_replay: Callable[..., Model]) -> None:
    body = b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    async with loomstream_replay("openai", body) as model:
        assert (await model.complete("x")).text == "hi"


def test_the_plugin_is_found_by_pytest() -> None:
    (entry,) = metadata.entry_points(group="pytest11", name="loomstream")
    assert entry.value == PLUGIN


def test_the_plugin_imports_nothing_of_loomstream_before_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    ours = {name for name in sys.modules if name.split('.')[0] == 'loomstream'}\n"
        "    plugin = {'loomstream.testing', 'loomstream.testing.pytest_plugin'}\n"
        "    assert ours == {'loomstream', 'loomstream.lazy', *plugin}, ours\n",
        "utf-8",
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        PLUGIN,
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    only_ours = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # the others take most of the time
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=only_ours)
    assert done.returncode == 0, done.stdout
