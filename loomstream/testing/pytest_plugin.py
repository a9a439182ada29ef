"""The pytest plugin: loomstream's fakes as fixtures, for projects that test with pytest.

Installed with loomstream. It imports nothing of loomstream before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from loomstream.model import Model
    from loomstream.testing.scripted import ScriptedModel


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
