"""Requests to Converse: from the neutral `Request` to the wire's JSON.

Contract: pure. What the wire cannot carry is left out and named by `warnings`; unset fields are not sent. Turns of one
role that follow each other are joined; tool results are user content; system turns move to the `system` field. Signed
reasoning goes back to its issuer alone, byte for byte. A cache point is a `cachePoint` block; `cache_prompt` puts one
behind the tools, the system, and the last two turns of the user. `extra_body` is laid over the body key by key, and a
list in it replaces the body's own: `guardrailConfig` and `additionalModelResponseFieldPaths` go that way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import msgspec

from loomstream.dialects import Target, endpoint_url, host_headers
from loomstream.dialects.aws_metadata import checked_metadata
from loomstream.dialects.bedrock_converse.turns import Slot, Turns
from loomstream.dialects.bodies import encode_body
from loomstream.dialects.cache_points import Slots
from loomstream.dialects.closed_schemas import closed_schema
from loomstream.dialects.fields import JSONObject
from loomstream.dialects.honoured import BUDGET_FIRST, unhonoured
from loomstream.messages import CacheTTL, Request, Tool, ToolCall, ToolChoice, ToolResult
from loomstream.wire import WireRequest
from loomstream.wire.aws import MEDIA_TYPE

HONOURED = frozenset({"output", "cache_prompt", "metadata", "service_tier", "latency"})
"""The optional fields of a request (see `loomstream.dialects.honoured`) that this wire has a place for."""

MIN_BUDGET_TOKENS = 1024
"""The smallest thinking budget that the models take."""

_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32000}
_LEVELS = {"minimal": "low", "xhigh": "high", "max": "high"}
"""Efforts that the models without a budget do not know."""


def build_request(request: Request, target: Target) -> WireRequest:
    """Give the wire request for `POST {base_url}/model/{model}/converse-stream`, or `/converse` without a stream.

    The model is an id, the id of an inference profile or an ARN; it is percent-encoded. Raises `RequestError` where
    the body cannot be written as JSON or a label cannot be kept, `Unsupported`, with its place, for an image, a
    document or a sound by URL (other than `s3://`) or of an unknown type, and for an output of keys that have no names.
    """
    operation = "converse-stream" if request.stream else "converse"
    accepted = f"{MEDIA_TYPE}, application/json" if request.stream else "application/json"
    writer = _Writer(request, target)
    return WireRequest(
        url=endpoint_url(target, f"/model/{{model}}/{operation}", stream=request.stream),
        headers={
            "content-type": "application/json",
            "accept": accepted,
            **host_headers(target),
            **request.extra_headers,
        },
        body=encode_body(writer.body, request.extra_body),
        warnings=tuple(dict.fromkeys((*writer.warnings, *unhonoured(request, HONOURED)))),
    )


class _Writer:
    """Writes one request; `body` and `warnings` are the outcome."""

    def __init__(self, request: Request, target: Target) -> None:
        self._request = request
        self._target = target
        self.warnings: list[str] = []
        slots: Slots[Slot] = Slots()
        turns = Turns(request, target, slots)
        tools = self._tools(slots)  # models read them first, then the system
        system, messages = turns.system(), turns.messages()
        for slot, ttl in slots.breakpoints(request.cache_prompt, target.quirks.longest_cache_ttl):
            _insert(slot, ttl)
        self.body: JSONObject = {"messages": messages}
        optional: JSONObject = {
            "system": system,
            "inferenceConfig": self._inference(),
            "toolConfig": tools,
            "additionalModelRequestFields": self._additional(),
            **self._options(),
        }
        self.body.update((key, value) for key, value in optional.items() if value)
        self.warnings += [*turns.warnings, *slots.warnings]
        for name in ("seed", "parallel_tool_calls"):
            if getattr(request, name) is not None:
                self.warnings.append(f"{name} is not sent: this wire has none")

    # --- settings --------------------------------------------------------------------------------

    def _inference(self) -> JSONObject:
        request = self._request
        settings: JSONObject = {
            "maxTokens": request.max_tokens,
            "temperature": self._taken("temperature"),
            "topP": self._taken("top_p"),
            "stopSequences": list(request.stop_sequences) or None,
        }
        return {key: value for key, value in settings.items() if value is not None}

    def _taken(self, name: str) -> object:
        """Give an option's value, where the model takes the option."""
        value: object = getattr(self._request, name)
        if value is None or name not in self._target.quirks.refused:
            return value
        self.warnings.append(f"{name} is not sent: this model does not take it")
        return None

    def _options(self) -> JSONObject:
        request = self._request
        return {
            "outputConfig": self._output(),
            "performanceConfig": {"latency": request.latency} if request.latency else None,
            "serviceTier": {"type": request.service_tier} if request.service_tier else None,
            "requestMetadata": checked_metadata(request.metadata),
        }

    def _output(self) -> JSONObject | None:
        """Write the schema, which goes as a text; the description has a place of its own."""
        output = self._request.output
        if output is None:
            return None
        schema, warnings = closed_schema(msgspec.structs.replace(output, description=""))
        self.warnings += warnings
        definition: JSONObject = {"schema": encode_body(schema, {}).decode(), "name": output.name}
        if output.description:
            definition["description"] = output.description
        return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": definition}}}

    def _additional(self) -> JSONObject:
        fields = self._reasoning()
        if self._taken("top_k") is None:
            return fields
        path = self._target.quirks.top_k_field
        if not path:
            self.warnings.append("top_k is not sent: this model takes none that is known; see extra_body")
            return fields
        value: object = self._request.top_k
        for key in reversed(path.split(".")):
            value = {key: value}
        return {**fields, **cast("JSONObject", value)}

    def _reasoning(self) -> JSONObject:
        request, field = self._request, self._target.quirks.reasoning_field
        effort, budget = request.reasoning_effort, request.reasoning_budget_tokens
        if effort is None and budget is None:
            return {}
        off = budget == 0 or (budget is None and effort == "none")
        written = _REASONING[field](self, off) if field else {}
        if not written:
            self.warnings.append(
                "reasoning is not set as asked: this model takes no such setting that is known; see extra_body, "
                "additionalModelRequestFields"
            )
        return written

    def thinking(self, off: bool) -> JSONObject:  # noqa: FBT001 (one signature)
        """Write adaptive thinking with an effort, or a budget where one is asked for and taken."""
        budget = self._request.reasoning_budget_tokens
        if budget and not self._target.quirks.thinking_budgets:
            self.warnings.append("reasoning_budget_tokens is not sent: this model takes reasoning_effort alone")
        elif off or budget is not None:
            return self.thinking_budget(off)
        level = self._level("minimal")
        effort: JSONObject = {"output_config": {"effort": level}} if level not in {"", "none"} else {}
        return {"thinking": {"type": "adaptive"}, **effort}

    def thinking_budget(self, off: bool) -> JSONObject:  # noqa: FBT001 (one signature)
        """Write thinking with a budget: the one that is asked for, or the effort's."""
        request, limit = self._request, self._request.max_tokens
        if request.reasoning_effort is not None and request.reasoning_budget_tokens is not None:
            self.warnings.append(BUDGET_FIRST)
        if off:
            return self._off()
        asked = request.reasoning_budget_tokens or _BUDGETS.get(request.reasoning_effort or "", 0)
        budget = max(asked, MIN_BUDGET_TOKENS)
        if budget != asked:
            self.warnings.append(f"reasoning_budget_tokens is raised to {budget}, the least on this wire")
        if limit is not None and limit <= MIN_BUDGET_TOKENS:
            return {}
        if limit is not None and budget >= limit:
            budget = limit - 1
            self.warnings.append(f"the reasoning budget is cut to {budget} tokens: it must be below max_tokens")
        return {"thinking": {"type": "enabled", "budget_tokens": budget}}

    def _off(self) -> JSONObject:
        off = self._target.quirks.thinking_off
        if off == "between_tools":
            self.warnings.append("reasoning is not off: this model thinks between calls of tools all the same")
        return {"thinking": {"type": off}} if off else {}

    def config(self, off: bool) -> JSONObject:  # noqa: FBT001 (one signature)
        """Write an effort among the model's own settings."""
        self._leave_out_one(off)
        if off:
            return {"reasoningConfig": {"type": "disabled"}}
        level = self._level(*_LEVELS)
        return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": level}} if level else {}

    def effort(self, off: bool) -> JSONObject:  # noqa: FBT001 (one signature)
        """Write an effort alone; it cannot be switched off."""
        self._leave_out_one(off)
        level = "" if off else self._level(*_LEVELS)
        return {"reasoning_effort": level} if level else {}

    def _leave_out_one(self, off: bool) -> None:  # noqa: FBT001 (the only argument)
        if self._request.reasoning_budget_tokens is not None and self._request.reasoning_effort is not None:
            no_budget = "reasoning_budget_tokens is not sent: this model takes reasoning_effort alone"
            self.warnings.append(BUDGET_FIRST if off else no_budget)

    def _level(self, *unknown: str) -> str:
        """Give the effort, in the place of one that the model does not know the nearest."""
        effort = self._request.reasoning_effort
        if effort is None:
            return ""
        sent = _LEVELS[effort] if effort in unknown else effort
        if sent != effort:
            self.warnings.append(f"reasoning_effort {effort!r} is sent as {sent!r}, the nearest that the model takes")
        return sent

    # --- tools -----------------------------------------------------------------------------------

    def _tools(self, slots: Slots[Slot]) -> JSONObject:
        config = self._tool_config()
        if config and "tools" in self._target.quirks.cache_points_in:
            tools = cast("list[object]", config["tools"])
            slots.add((tools, cast("JSONObject", tools[-1])))
            slots.end("tools")
        return config

    def _tool_config(self) -> JSONObject:
        request, choice = self._request, self._request.tool_choice
        if not request.tools:
            if choice is not None and choice.mode != "none":
                self.warnings.append("tool_choice is not sent: the request has no tools")
            return self._tools_of_history()
        if choice is not None and choice.mode == "none":
            if not _has_tool_turns(request):
                return {}  # the wire has no such choice, and a request without tools is the same
            self.warnings.append("tool_choice none is not sent: this wire has none, and earlier turns need the tools")
            choice = None
        config: JSONObject = {"tools": [_tool(tool) for tool in request.tools]}
        return config if choice is None else {**config, "toolChoice": _choice(self._choosable(choice))}

    def _choosable(self, choice: ToolChoice) -> ToolChoice:
        """Give the choice, or the nearest one that the model takes."""
        if self._target.quirks.forced_tools or choice.mode == "auto":
            return choice
        self.warnings.append(f"tool_choice {choice.mode} is sent as auto: this model cannot be made to call a tool")
        return ToolChoice()

    def _tools_of_history(self) -> JSONObject:
        """Declare what earlier turns called: the wire refuses such turns in a request without tools."""
        if "toolConfig" in self._request.extra_body:
            return {}
        names = _names_of_tools(self._request)
        if names:
            self.warnings.append(
                f"the tools of earlier turns are declared without their parameters ({', '.join(names)}): this wire "
                "wants them in each request, so give them by tools="
            )
        return {"tools": [_tool(Tool(name)) for name in names]} if names else {}


_REASONING: dict[str, Callable[[_Writer, bool], JSONObject]] = {
    "thinking": _Writer.thinking,
    "thinking_budget": _Writer.thinking_budget,
    "reasoningConfig": _Writer.config,
    "reasoning_effort": _Writer.effort,
}


def _insert(slot: Slot, ttl: CacheTTL) -> None:
    """Put a cache point behind a block; without a time it is 5 minutes, also for models that know no other."""
    container, block = slot
    position = next(number for number, other in enumerate(container) if other is block)
    point: JSONObject = {"type": "default", **({"ttl": ttl} if ttl == "1h" else {})}
    container.insert(position + 1, {"cachePoint": point})


def _has_tool_turns(request: Request) -> bool:
    blocks = [block for message in request.messages for block in message.content]
    return any(isinstance(block, ToolCall | ToolResult) for block in blocks)


def _names_of_tools(request: Request) -> tuple[str, ...]:
    """Give the names of the tools that earlier turns called or answered, each once."""
    blocks = [block for message in request.messages for block in message.content]
    names = [block.name for block in blocks if isinstance(block, ToolCall | ToolResult) and block.name]
    return tuple(dict.fromkeys(names))


def _tool(tool: Tool) -> JSONObject:
    specification: JSONObject = {"name": tool.name, "inputSchema": {"json": dict(tool.parameters)}}
    if tool.description:
        specification["description"] = tool.description
    return {"toolSpec": specification}


def _choice(choice: ToolChoice) -> JSONObject:
    return {"tool": {"name": choice.name}} if choice.mode == "tool" else {choice.mode: {}}
