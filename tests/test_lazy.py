"""Packages whose names are loaded on first use have all that they promise, and nothing else."""

from __future__ import annotations

import importlib

import pytest

PACKAGES = ("loomstream", "loomstream.local", "loomstream.testing", "loomstream.ui")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_stays(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__
    for name in module.__all__:
        value = getattr(module, name)
        assert vars(module)[name] is value


@pytest.mark.parametrize("package", PACKAGES)
def test_a_misspelt_name_is_refused_as_python_does(package: str) -> None:
    with pytest.raises(AttributeError, match=f"^module '{package}' has no attribute 'strem'$"):
        importlib.import_module(package).strem  # noqa: B018 (looking it up is the test)
