"""The package's public names."""

from __future__ import annotations

import subprocess
import sys

import pytest

import loomstream.testing


@pytest.mark.parametrize("name", loomstream.testing.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(loomstream.testing, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'mock'"):
        loomstream.testing.mock  # noqa: B018 (the look-up is the point)


def test_names_are_loaded_on_first_use() -> None:
    code = (
        "import sys, loomstream.testing as t; assert 'loomstream.model' not in sys.modules;"
        "t.check_order([], complete=False); assert 'loomstream.model' not in sys.modules;"
        "t.replay_model; assert 'loomstream.model' in sys.modules; assert 'replay_model' in vars(t)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
