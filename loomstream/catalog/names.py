"""Which names of models stand for which: the rules of `loomstream.catalog`, and those of the sources.

Contract: pure functions over names.
"""

from __future__ import annotations

import re

DATED = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|latest)\Z")
REGIONAL = re.compile(r"\A(?:us|eu|apac|jp|au)\.(?=[a-z]+\.)")
GLOBAL = re.compile(r"\Aglobal\.(?=[a-z]+\.)")

_SOURCE_REGION = re.compile(r"\Aregional\.(?=[a-z]+\.)")
_REGION_ROW = re.compile(r"\Abedrock/(?P<region>[a-z]{2}(?:-gov)?-[a-z]+-\d)/(?P<model>[^/]+)\Z")


_FINE_TUNED = re.compile(r"\A(ft:[^:]+):.*\Z", re.DOTALL)
_PREFIX = re.compile(r"\A(ft:.*[^-])-\Z")


def plain_names(name: str) -> tuple[str, ...]:
    """Give the other names that a name may stand for, at the same price."""
    return tuple(plain for rule in (DATED, REGIONAL) if (plain := rule.sub("", name)) != name)


def tuned_names(name: str) -> tuple[str, ...]:
    """Give the names of the price of a fine-tuned model, `ft:BASE:ORGANIZATION:NAME:ID`: `ft:BASE`, then undated."""
    found = _FINE_TUNED.match(name)
    return () if found is None else (found[1], *plain_names(found[1]))


def whole_id(name: str) -> str:
    """Give the id of a model that genai-prices names by the beginning of its ids; empty where there is no such model.

    >>> whole_id("ft:gpt-3.5-turbo-"), whole_id("gpt-4o-mini-2024-07-18.ft-")
    ('ft:gpt-3.5-turbo', '')
    """
    found = _PREFIX.match(name)
    return found[1] if found else "" if name.endswith("-") else name


def own_region(name: str) -> str:
    """Give the id that genai-prices writes `regional.…`: what is asked for without a prefix."""
    return _SOURCE_REGION.sub("", name)


def region_row(key: str) -> tuple[str, str] | None:
    """Give the region and the model of a key of litellm's that states a region's price; None for other keys."""
    found = _REGION_ROW.match(key)
    return None if found is None else (found["region"], found["model"])
