"""Live user interfaces: a stream on its way to browsers.

    from loomstream import ui

    async def answer(request):                                       # Starlette, FastAPI
        return ui.starlette.response(model.stream(await request.body()), format="ai-sdk")

`formats` and `ai_sdk` are events as bytes, `Broadcast` is one stream with several readers, `Hub` the running streams of
a server, `asgi.respond` a stream as an HTTP response. `loomstream.ui.page` is what `looms ui` serves.

Contract: importing this imports no web framework and no event loop; `ui.starlette` does, and needs the extra `serve`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loomstream.lazy import lazy

if TYPE_CHECKING:
    from loomstream.ui import asgi, starlette
    from loomstream.ui.ai_sdk import AISDKEncoder
    from loomstream.ui.asgi import encoder, respond
    from loomstream.ui.broadcast import Broadcast, Reader
    from loomstream.ui.formats import Encoder, Format, NDJSONEncoder, Problem, SSEEncoder, describe, describe_kind
    from loomstream.ui.hub import Hub

_HOMES = {
    "ai_sdk": ("AISDKEncoder",),
    "asgi": ("encoder", "respond"),
    "broadcast": ("Broadcast", "Reader"),
    "formats": ("Encoder", "Format", "NDJSONEncoder", "Problem", "SSEEncoder", "describe", "describe_kind"),
    "hub": ("Hub",),
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

if not TYPE_CHECKING:  # a checker would take any misspelt name for an object
    __getattr__ = lazy(globals(), _HOMES, _MODULES)
