"""Reasoning details (OpenRouter): pieces to whole details, which go back to their issuer with the next request.

Contract: pure; time and memory grow with the size of the pieces alone.
"""

from __future__ import annotations

import msgspec

from loomstream.dialects.fields import JSONObject

_GROWING = ("text", "summary", "data")


class Details:
    """The details of one block of reasoning."""

    __slots__ = ("_items", "_pieces")

    def __init__(self) -> None:
        self._items: list[JSONObject] = []
        self._pieces: dict[str, list[str]] = {}
        """What came for the growing fields of the last item."""

    def add(self, piece: JSONObject) -> None:
        """Take a detail, or a piece of the last one: its texts grow, other fields are set once they are there."""
        if not self._items or _is_another(self._items[-1], piece):
            self._settle()
            self._items.append({})
        last = self._items[-1]
        for name, value in piece.items():
            if name in self._pieces and isinstance(value, str):
                self._pieces[name].append(value)
            elif name in _GROWING and isinstance(value, str):
                last[name] = value
                self._pieces[name] = [value]
            elif value is not None or name not in last:
                last[name] = value
                self._pieces.pop(name, None)

    def take(self) -> str:
        """Give the details as JSON text, empty where there are none, and forget them."""
        self._settle()
        items, self._items = self._items, []
        return msgspec.json.encode(items).decode() if items else ""

    def _settle(self) -> None:
        for name, pieces in self._pieces.items():
            self._items[-1][name] = "".join(pieces)
        self._pieces = {}


def _is_another(last: JSONObject, piece: JSONObject) -> bool:
    if any(last.get(name) != piece.get(name) for name in ("type", "index")):
        return True
    return bool(piece.get("id")) and last.get("id") not in (None, piece["id"])
