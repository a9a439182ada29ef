"""Requests to Messages: from the neutral `Request` to the wire's JSON.

Contract: pure. What the wire cannot carry is left out and named by `warnings`; unset fields are not sent. Turns
of one role that follow each other are joined, because the wire wants user and assistant to take turns; tool results are
user content; system turns move to the `system` field. Signed thinking goes back to its issuer alone, byte for byte.
A cache point is `cache_control` on the block before it; `cache_prompt` sets it on the last tool, the system, and the
last two turns of the user.
"""

from __future__ import annotations

import re

import msgspec

from loomstream.dialects import Target, endpoint_url, host_headers
from loomstream.dialects.anthropic_messages.turns import Turns
from loomstream.dialects.bodies import encode_body
from loomstream.dialects.cache_points import Slots
from loomstream.dialects.closed_schemas import closed_schema
from loomstream.dialects.fields import JSONObject
from loomstream.dialects.honoured import BUDGET_FIRST, unhonoured
from loomstream.messages import Request, Tool, ToolChoice
from loomstream.wire import WireRequest

HONOURED = frozenset({"output", "cache_prompt", "end_user_id", "service_tier"})
"""The optional fields of a request (see `loomstream.dialects.honoured`) that this wire has a place for."""

API_VERSION = "2023-06-01"
"""The only version of the API since it was first published; features come by beta headers."""

MIN_BUDGET_TOKENS = 1024
"""The smallest thinking budget that the API takes."""

_HEADERS = {
    "content-type": "application/json",
    "accept": "text/event-stream, application/json",
}
_EFFORTS = {"minimal": "low"}
# Models before adaptive thinking refuse it and take a budget instead.
# Source: https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking, table of supported models.
_BUDGET_MODELS = re.compile(r"claude-(?:3|(?:opus|sonnet|haiku)-4(?:[-.][015](?!\d)|[-@]\d{8}|$))")
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32000}


def build_request(request: Request, target: Target) -> WireRequest:
    """Give the wire request for `POST {base_url}/v1/messages`, or the path that the quirks give.

    Raises `RequestError` where the body cannot be written as JSON, `Unsupported`, with its place, for an image or a
    document that the API does not take, and for an output of keys that are not named.
    """
    direct = msgspec.structs.replace(target, base_url=target.base_url.removesuffix("/v1"))
    writer = _Writer(request, target)
    return WireRequest(
        url=endpoint_url(direct, "/v1/messages", stream=request.stream),
        headers={**_HEADERS, **_version(target), **host_headers(target), **request.extra_headers},
        body=encode_body(writer.body, request.extra_body),
        warnings=tuple(dict.fromkeys((*writer.warnings, *unhonoured(request, HONOURED)))),
    )


def _version(target: Target) -> dict[str, str]:
    return {} if target.quirks.anthropic_version else {"anthropic-version": API_VERSION}


class _Writer:
    """Writes one request; `body` and `warnings` are the outcome."""

    def __init__(self, request: Request, target: Target) -> None:
        self._request = request
        self._target = target
        self.warnings: list[str] = []
        slots: Slots[JSONObject] = Slots()
        turns = Turns(request, target, slots)
        written: JSONObject = {
            "model": target.model if target.quirks.model_in_body else None,
            "tools": self._tools(slots),  # the API reads them first, then the system
            "system": turns.system(),
            "messages": turns.messages(),
            **self._settings(),
        }
        for block, ttl in slots.breakpoints(request.cache_prompt, target.quirks.longest_cache_ttl):
            # without a time it is 5 minutes, also for hosts and models that know no other
            block["cache_control"] = {"type": "ephemeral", **({"ttl": ttl} if ttl == "1h" else {})}
        self.body: JSONObject = {key: value for key, value in written.items() if value is not None}
        self.warnings += [*turns.warnings, *slots.warnings]
        for key in target.quirks.refused:
            if self.body.pop(key, None) is not None:
                self.warnings.append(f"{key} is not sent: this model does not take it")

    # --- settings --------------------------------------------------------------------------------

    def _settings(self) -> JSONObject:
        request, quirks = self._request, self._target.quirks
        if request.seed is not None:
            self.warnings.append("seed is not sent: this wire has none")
        return {
            "anthropic_version": quirks.anthropic_version or None,
            "max_tokens": self._max_tokens(),
            "stream": (request.stream and quirks.stream_in_body) or None,
            "tool_choice": self._tool_choice(),
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "stop_sequences": list(request.stop_sequences) or None,
            "metadata": {"user_id": request.end_user_id} if request.end_user_id else None,
            "service_tier": request.service_tier or None,
            "thinking": self._thinking(),
            "output_config": {**self._effort(), **self._format()} or None,
        }

    def _max_tokens(self) -> int | None:
        """Give the limit; a default one makes room for the thinking budget, which counts against it."""
        default = self._target.quirks.needs_max_tokens
        if self._request.max_tokens is not None or default is None:
            return self._request.max_tokens
        return default + (self._wanted_budget() or 0)

    def _wanted_budget(self) -> int | None:
        request = self._request
        if request.reasoning_budget_tokens and not self._target.quirks.thinking_budgets:
            return None
        if request.reasoning_budget_tokens is not None:
            return max(request.reasoning_budget_tokens, MIN_BUDGET_TOKENS) if request.reasoning_budget_tokens else 0
        if request.reasoning_effort is not None and _BUDGET_MODELS.search(self._target.model):
            return _BUDGETS.get(request.reasoning_effort, 0)
        return None

    def _thinking(self) -> JSONObject | None:
        asked, effort = self._request.reasoning_budget_tokens, self._request.reasoning_effort
        budget = self._wanted_budget()
        if budget == 0 or (not asked and effort == "none"):
            return self._off()
        if budget is not None:
            return self._budget(budget)
        if asked:
            self.warnings.append("reasoning_budget_tokens is not sent: this model takes reasoning_effort alone")
        return {"type": "adaptive"} if asked or effort is not None else None

    def _off(self) -> JSONObject | None:
        off = self._target.quirks.thinking_off
        if off != "disabled":
            rest = "thinks between calls of tools all the same" if off else "always thinks"
            self.warnings.append(f"reasoning is not off: this model {rest}")
        return {"type": off} if off else None

    def _effort(self) -> JSONObject:
        """Give the effort, where the model takes one: not in the place of a budget, nor where thinking is off."""
        effort, budget = self._request.reasoning_effort, self._wanted_budget()
        by_budget_alone = budget is not None and self._request.reasoning_budget_tokens is None
        if effort is None or effort == "none" or budget == 0 or by_budget_alone:
            if effort is not None and self._request.reasoning_budget_tokens is not None:
                self.warnings.append(BUDGET_FIRST)
            return {}
        sent = _EFFORTS.get(effort, effort)
        if sent != effort:
            self.warnings.append(f"reasoning_effort {effort!r} is sent as {sent!r}, the lowest on this wire")
        return {"effort": sent}

    def _format(self) -> JSONObject:
        output = self._request.output
        if output is None:
            return {}
        schema, warnings = closed_schema(output)
        self.warnings += warnings
        return {"format": {"type": "json_schema", "schema": schema}}

    def _budget(self, budget: int) -> JSONObject | None:
        limit = self._request.max_tokens
        asked = self._request.reasoning_budget_tokens
        if asked is not None and asked < budget:
            self.warnings.append(f"reasoning_budget_tokens is raised to {budget}, the least on this wire")
        if limit is not None and limit <= MIN_BUDGET_TOKENS:
            self.warnings.append(f"reasoning is off: max_tokens {limit} leaves no room for {MIN_BUDGET_TOKENS} tokens")
            return None
        if limit is not None and budget >= limit:
            budget = limit - 1
            self.warnings.append(f"the reasoning budget is cut to {budget} tokens: it must be below max_tokens")
        return {"type": "enabled", "budget_tokens": budget}

    def _taken(self, choice: ToolChoice) -> ToolChoice:
        """Give the choice, or the nearest one that the model takes."""
        if self._target.quirks.forced_tools or choice.mode not in {"any", "tool"}:
            return choice
        self.warnings.append(f"tool_choice {choice.mode} is sent as auto: this model cannot be made to call a tool")
        return ToolChoice()

    def _tools(self, slots: Slots[JSONObject]) -> list[JSONObject] | None:
        tools = [_tool(tool) for tool in self._request.tools]
        for tool in tools:
            slots.add(tool)
        slots.end("tools")
        return tools or None

    def _tool_choice(self) -> object:
        request = self._request
        choice = request.tool_choice
        if not request.tools:
            if choice is not None and choice.mode != "none":
                self.warnings.append("tool_choice is not sent: the request has no tools")
            return None
        serial = request.parallel_tool_calls is False
        if choice is None and not serial:
            return None
        written = _choice(self._taken(choice or ToolChoice()))
        if serial and written["type"] != "none":
            written["disable_parallel_tool_use"] = True
        return written


def _tool(tool: Tool) -> JSONObject:
    written: JSONObject = {"name": tool.name, "input_schema": dict(tool.parameters)}
    return {**written, "description": tool.description} if tool.description else written


def _choice(choice: ToolChoice) -> JSONObject:
    return {"type": "tool", "name": choice.name} if choice.mode == "tool" else {"type": choice.mode}
