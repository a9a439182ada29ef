"""The first `looms.yaml`: what was chosen, and everything else as comments to uncomment.

Contract: pure text, made from the tables of providers and settings; no key ever stands in it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping

import yaml

from loomstream.auth import API_KEY
from loomstream.config.settings import SettingRow, Value
from loomstream.config.table import CALL_ROWS, PROVIDER_ROWS
from loomstream.providers import Provider
from loomstream.providers.table import TABLE

IGNORED = ("*.key", "*credentials*.yaml", ".env")
"""What belongs in a repository's `.gitignore` (the seed's lines)."""

_HEAD = """\
# What looms and loomstream use; docs/reference/configuration.md explains each setting.
# Keys do not belong here: store them with `looms config set-key NAME`, or set a variable.
"""
_WIDTH = 1 << 16
_COMMENT_WIDTH = 100


def choices() -> tuple[Provider, ...]:
    """Give the providers that a new configuration can name."""
    return TABLE


def questions(row: Provider) -> tuple[SettingRow, ...]:
    """Give the settings of a provider that only its user knows or may want to change: model, address, and the like."""
    return tuple(
        each
        for each in PROVIDER_ROWS
        if each.provider == row.name and not each.secret and each.feeds not in ("extra_headers", API_KEY)
    )


def needed(row: Provider) -> tuple[SettingRow, ...]:
    """Give those of them without which nothing can be sent."""
    required = {setting.name for setting in row.settings if setting.required and not setting.default}
    required |= set() if row.base_url or row.launch or row.handler else {"base_url"}
    required |= set() if row.default_model else {"model"}
    return tuple(each for each in questions(row) if each.feeds in required)


def new_file(row: Provider, values: Mapping[str, Value]) -> str:
    """Give the text of a configuration for a provider; `values` are settings of `llm:`, by path."""
    lines = [f"  provider: {row.name}"]
    lines += [f"  {path.removeprefix('llm.')}: {_scalar(value)}" for path, value in values.items()]
    calls = [each for each in CALL_ROWS if each.section == "llm" and each.path not in values]
    lines += [line for each in calls for line in _comment(each)]
    lines += _of_others(row, values)
    return f"{_HEAD}llm:\n" + "\n".join(lines) + "\n"


def _of_others(chosen: Provider, values: Mapping[str, Value]) -> list[str]:
    lines: list[str] = []
    for row in (chosen, *(row for row in TABLE if row is not chosen)):
        rows = [each for each in questions(row) if each.path not in values]
        if rows:
            said = "more of" if row is chosen else "to use it, set provider above to"
            lines += ["", f"  # --- {said} {row.name}", *_shown(rows)]
    return lines


def _shown(rows: Iterable[SettingRow]) -> list[str]:
    return [f"  # {each.name}: {'' if each.default is None else _scalar(str(each.default))}".rstrip() for each in rows]


def _comment(row: SettingRow) -> list[str]:
    words = textwrap.wrap(row.help, _COMMENT_WIDTH)
    value = "" if row.default is None else f" {_scalar(row.default)}"
    return [*(f"  # {line}" for line in words), f"  # {row.name}:{value}"]


def _scalar(value: object) -> str:
    dumped = yaml.safe_dump(value, default_flow_style=True, width=_WIDTH, allow_unicode=True)
    return dumped.removesuffix("\n").removesuffix("\n...").strip()
