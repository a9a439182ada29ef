"""A tool as OpenAI's chat writes it, and the wires that follow it.

Contract: pure. Knows no wire.
"""

from __future__ import annotations

from loomstream.dialects.fields import JSONObject
from loomstream.messages import Tool


def function_tool(tool: Tool) -> JSONObject:
    """Give a tool's declaration; one without a description has none."""
    described = {"description": tool.description} if tool.description else {}
    return {"type": "function", "function": {"name": tool.name, "parameters": dict(tool.parameters), **described}}
