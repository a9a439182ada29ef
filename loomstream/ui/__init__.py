"""Live user interfaces: a stream on its way to browsers.

    from loomstream import ui

    async def answer(request):                                       # Starlette, FastAPI
        return ui.starlette.response(model.stream(await request.body()), format="ai-sdk")

`formats` and `ai_sdk` are events as bytes, `Broadcast` is one stream with several readers, `Hub` the running streams of
a server, `asgi.respond` a stream as an HTTP response. `loomstream.ui.page` is what `looms ui` serves.

Contract: importing this imports no web framework and no event loop; `ui.starlette` does, and needs the extra `serve`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loomstream.ui import asgi, starlette
    from loomstream.ui.ai_sdk import AISDKEncoder
    from loomstream.ui.asgi import encoder, respond
    from loomstream.ui.broadcast import Broadcast, Reader
    from loomstream.ui.formats import Encoder, Format, NDJSONEncoder, Problem, SSEEncoder, describe, describe_kind
    from loomstream.ui.hub import Hub

_HOME_OF = {
    "AISDKEncoder": "ai_sdk",
    "Broadcast": "broadcast",
    "Encoder": "formats",
    "Format": "formats",
    "Hub": "hub",
    "NDJSONEncoder": "formats",
    "Problem": "formats",
    "Reader": "broadcast",
    "SSEEncoder": "formats",
    "describe": "formats",
    "describe_kind": "formats",
    "encoder": "asgi",
    "respond": "asgi",
}
_MODULES = frozenset(("asgi", "starlette"))

__all__ = (
    "AISDKEncoder",
    "Broadcast",
    "Encoder",
    "Format",
    "Hub",
    "NDJSONEncoder",
    "Problem",
    "Reader",
    "SSEEncoder",
    "asgi",
    "describe",
    "describe_kind",
    "encoder",
    "respond",
    "starlette",
)


def __getattr__(name: str) -> object:
    """Load a name on first use."""
    if name in _MODULES:
        return importlib.import_module(f"loomstream.ui.{name}")
    home = _HOME_OF.get(name)
    if home is None:
        msg = f"module 'loomstream.ui' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(f"loomstream.ui.{home}"), name)
    globals()[name] = value
    return value
