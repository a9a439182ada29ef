"""The pytest plugin: loomstream's fakes as fixtures, for projects that test with pytest.

Installed with loomstream. It imports nothing of loomstream before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from loomstream.model import Model
    from loomstream.testing.scripted import ScriptedModel
    from loomstream.testing.server import Simulator


@pytest.fixture
def loomstream_scripted() -> Callable[..., ScriptedModel]:
    """Give `loomstream.testing.scripted_model`."""
    from loomstream.testing import scripted_model  # noqa: PLC0415 (nothing is imported before it is used)

    return scripted_model


@pytest.fixture
def loomstream_replay() -> Callable[..., Model]:
    """Give `loomstream.testing.replay_model`."""
    from loomstream.testing import replay_model  # noqa: PLC0415 (nothing is imported before it is used)

    return replay_model


@pytest.fixture
def loom_simulator() -> Iterator[Callable[..., Simulator]]:
    """Give what opens `loomstream.testing.server.simulator` with its arguments; all are closed after the test."""
    from loomstream.testing.server import simulator  # noqa: PLC0415 (nothing is imported before it is used)

    with ExitStack() as opened:
        yield lambda *scripts, **options: opened.enter_context(simulator(*scripts, **options))
