"""Tools for models that have none of their own: told in the prompt, and called in the text of the answer.

Contract: see `loomstream.adapt`. It does nothing where `tool_mode` is `native`; it acts where it is `prompt`, and with
`auto` where the host says that the model has no tools, or, if the host says nothing, the catalog does. How is
`told_tools`' business, which is loaded at the first use.
"""

from __future__ import annotations

from loomstream import catalog
from loomstream.adapt.plan import Adapted, has_calls
from loomstream.dialects import Target
from loomstream.messages import Request

_ABILITY = "tools"
"""What a host's list of capabilities calls them."""


def prompted_tools(request: Request, target: Target) -> Adapted | None:
    """Give the request with tools and calls in words, and what reads the answer's calls; None where unneeded."""
    if request.tool_mode == "native" or not (request.tools or has_calls(request)):
        return None
    if request.tool_mode == "auto" and not _lacks_tools(target):
        return None
    from loomstream.adapt.told_tools import told_tools  # noqa: PLC0415 (most programs never need it)

    return told_tools(request, target)


def _lacks_tools(target: Target) -> bool:
    capabilities = target.quirks.capabilities
    if capabilities:
        return _ABILITY not in capabilities
    entry = catalog.look_up(target.provider, target.model)
    return entry is not None and entry.tools not in (None, "native")
