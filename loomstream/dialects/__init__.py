"""Wire protocol families: modules of pure functions over values.

A dialect is a module with

    build_request(request, target) -> WireRequest
    translator(target) -> Translator
    parse_response(body, target) -> list[Event | Failure]
    parse_error(status, headers, body, target) -> ProviderError

Contract: no I/O, no clock, no randomness; dialects do not know each other, nor any provider's name: what differs
between hosts is a named flag in `Quirks`. A translator never raises: a failure is the last item of
its list, after which it is finished. `finish` ends in `Failure(StreamTruncated)` unless the dialect's terminal marker
was seen. The non-streaming path gives events that fold to the same response as the stream's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from typing import Annotated, Literal, Protocol

from msgspec import Meta, Struct

from loomstream.dialects.templates import MODEL, check_header, check_path, filled, path_value
from loomstream.errors import ConfigError, Failure, ProviderError
from loomstream.events import Event
from loomstream.messages import CacheTTL, Request
from loomstream.wire import Frame, WireRequest

_MOST = 2**31 - 1
_Text = Annotated[str, Meta(min_length=1)]
ThinkingLevel = Literal["minimal", "low", "medium", "high"]
"""How much a model thinks that is steered by levels."""


class Quirks(Struct, frozen=True, kw_only=True):
    """How a host departs from its dialect's plain form. Every flag's default is the plain form."""

    done_marker: bool = False
    """`[DONE]` without a finish reason is a whole answer too (OpenAI chat)."""
    stream_usage: bool = True
    """Ask for usage by `stream_options` (OpenAI chat); False where the host refuses the key."""
    max_tokens_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The body's key for the limit on output tokens (OpenAI chat)."""
    seed_key: _Text = "seed"
    """The body's key for the sampling seed (OpenAI chat)."""
    system_role: Literal["system", "developer", "user"] = "system"
    """The role of system turns (OpenAI chat); `user`: the model refuses them, they go into the first user turn."""
    refused: tuple[str, ...] = ()
    """The body's keys that the model answers by an error: left out, with a warning (OpenAI, Anthropic Messages); on
    Bedrock Converse by their names in a request."""
    refused_with_effort: tuple[str, ...] = ()
    """The same where the request asks for reasoning, by an effort other than `none` (OpenAI chat)."""
    unknown: tuple[str, ...] = ()
    """The options that the host does not know, or takes without heeding them, by the body's keys or as
    `logprobs`, `output`, `end_user_id`: left out, with a warning (OpenAI chat, OpenAI Responses)."""
    output_by: Literal["native", "tool", "prompt"] = "native"
    """What `output_mode="auto"` becomes: the wire's own JSON of a schema, a tool, or words (any dialect)."""
    output_grammar: bool = False
    """The server holds the whole answer to `output` by a grammar: so a tool that must be called is called, by a model
    that has no tool calls of its own (any dialect)."""
    json_schema: bool = True
    """False where the host's own mode is JSON of any shape: `output` asks for that, with a warning (OpenAI chat)."""
    logprobs_by: Literal["flag", "count"] = "flag"
    """How token probabilities are asked for: by a flag and the number of alternatives, or by that number alone, which
    is at least one then (OpenAI chat)."""
    end_user_key: Literal["user", "safety_identifier"] = "user"
    """The body's key for who asks (OpenAI chat, OpenAI Responses)."""
    metadata_needs_store: bool = False
    """The host refuses `metadata` unless the answer is stored, too (OpenAI chat)."""
    cache_points: Literal["", "cache_control", "prompt_cache_breakpoint"] = ""
    """The member that marks a part as the end of what is to be cached; empty: there is none, the host caches by itself
    or not at all (OpenAI chat; OpenAI Responses: `prompt_cache_breakpoint`)."""
    prefix_at: str | None = None
    """A base URL with this end takes `prefix` on an assistant's last message, which the answer then continues; empty:
    any base URL does; None: none does (OpenAI chat)."""
    routing_suffix: bool = False
    """`routing` goes behind the model's name, after a colon (OpenAI chat)."""
    documents: Literal["", "file", "file_or_url", "file_url", "document_url"] = "file"
    """How documents are written: as `file` with their bytes, the same with an address in their place too, as `file_url`
    or `document_url` (bytes or an address); empty: not at all. Text is sent as text (OpenAI chat)."""
    audio_formats: tuple[str, ...] = ("wav", "mp3")
    """The formats of sound that the host takes; empty: no sound (OpenAI chat)."""
    audio_as: Literal["object", "text"] = "object"
    """How sound is written: as an object of data and format, or as one text, which may be an address (OpenAI chat)."""
    any_tool_word: Literal["required", "any"] = "required"
    """How `tool_choice` says that some tool must be called (OpenAI chat)."""
    tool_id_chars: Annotated[int, Meta(ge=1, le=256)] | None = None
    """Ids of tool calls are this many letters and digits: others are replaced by ones made from them (OpenAI chat)."""
    tool_name_chars: _Text = "A-Za-z0-9_-"
    """What the names of tools may hold behind their first character, a letter or `_`, as a regular expression's class;
    others are rewritten for the request (any dialect)."""
    tool_name_max: Annotated[int, Meta(ge=8, le=256)] = 64
    """How long they may be (any dialect)."""
    refusal_key: bool = True
    """False where earlier refusals go back as plain text, because the key is unknown to the host (OpenAI chat)."""
    reasoning_back: Literal["", "reasoning_content", "reasoning", "parts"] = ""
    """How an earlier turn's reasoning text goes back: under this key, or as parts of the content (OpenAI chat)."""
    top_k: bool = False
    """The host takes `top_k`, which is no part of the plain form (OpenAI chat)."""
    needs_max_tokens: Annotated[int, Meta(ge=1, le=_MOST)] | None = None
    """Sent as the limit on output tokens where the request has none, because the wire demands one."""
    top_k_field: str = ""
    """Where the model takes `top_k` among `additionalModelRequestFields`, dotted; empty: nowhere (Bedrock Converse)."""
    reasoning_field: Literal["", "thinking", "thinking_budget", "reasoningConfig", "reasoning_effort"] = ""
    """How the model's reasoning is set there: adaptive or budgeted thinking, or an effort (Bedrock Converse)."""
    capabilities: tuple[str, ...] = ()
    """What the host says that the model can do (`tools`, `thinking`, …); empty: not known, so it is tried (Ollama)."""
    think_levels: tuple[str, ...] = ()
    """The efforts that the model takes by name; empty: on or off (Ollama)."""
    path: str = ""
    """The path below the base URL in place of the dialect's own; may name `{model}` and the provider's settings."""
    stream_path: str = ""
    """The same for a request that streams, where it differs."""
    base_suffix: str = ""
    """A base URL with this end already holds what `path` would add: the dialect's own path goes behind it."""
    headers: Mapping[str, str] = {}
    """Headers of each request, as templates of settings (any dialect); one that names a setting without a value is left
    out."""
    encrypted_reasoning: bool = False
    """Ask for the encrypted content of reasoning, which models that do not reason refuse (OpenAI Responses)."""
    cost_header: str = ""
    """The response's header that says in US dollars what a whole answer has cost (any dialect)."""
    backend_header: str = ""
    """The response's header that says which of a router's backends served; what it costs depends on that. `Start.model`
    is then the requested id with that backend behind a colon, as the router takes it too (any dialect)."""
    anthropic_version: str = ""
    """Sent in the body as `anthropic_version`, in the place of the header (Anthropic Messages on other clouds)."""
    model_in_body: bool = True
    """False where the path names the model and the body must not (Anthropic Messages on other clouds)."""
    stream_in_body: bool = True
    """False where the path asks for a stream and the body must not (Anthropic Messages on Bedrock)."""
    url_sources: bool = True
    """False where images and documents go as bytes alone (Anthropic Messages on other clouds)."""
    cache_points_in: tuple[Literal["tools", "system", "messages"], ...] = ("tools", "system", "messages")
    """Where the model takes breakpoints of its cache (Bedrock Converse)."""
    longest_cache_ttl: CacheTTL = "1h"
    """How long it keeps what they mark, at most (Anthropic Messages, Bedrock)."""
    thinking_budgets: bool = True
    """False where thinking takes no budget and goes by an effort alone (Anthropic Messages, Bedrock Converse)."""
    thinking_off: Literal["", "disabled", "between_tools"] = "disabled"
    """How thinking is switched off, or made least; empty: it cannot be (Anthropic Messages, Bedrock Converse)."""
    forced_tools: bool = True
    """False where the model refuses to be made to call a tool (Anthropic Messages, Bedrock Converse)."""
    thinking_by: Literal["level", "budget", "none"] = "level"
    """How thinking is steered: by a level, by a budget of tokens, or not at all (Gemini). By level means the generation
    that also wants a signature on the first call of a turn, and takes files within a tool's result."""
    thinking_levels: Annotated[tuple[ThinkingLevel, ...], Meta(min_length=1)] = ("minimal", "low", "medium", "high")
    """The levels that the model takes; in the place of another one goes the nearest (Gemini)."""
    least_thinking_budget: Annotated[int, Meta(ge=0, le=_MOST)] = 0
    """The smallest budget that the model takes beside 0, which switches thinking off (Gemini)."""
    always_thinks: bool = False
    """Thinking cannot be switched off: a budget of 0 is none (Gemini)."""


class Target(Struct, frozen=True, kw_only=True):
    """Where a request goes: provider, model, base URL without a trailing slash, the host's quirks, its settings.

    `settings` are the values of what the provider's row lists as its settings (a region, a project).
    """

    provider: str
    model: str
    base_url: str = ""
    quirks: Quirks = Quirks()
    settings: Mapping[str, str] = {}


def check_quirks(quirks: Quirks, settings: Collection[str]) -> None:
    """Raise `ConfigError` where a path or a header is not what it must be, or names none of these settings."""
    for path in (quirks.path, quirks.stream_path):
        check_path(path, (MODEL, *settings))
    for name, template in quirks.headers.items():
        check_header(name, template, settings)


def endpoint_url(target: Target, path: str, *, stream: bool = True) -> str:
    """Give the URL of a request: the base URL and `path`, or the path that the quirks give in its place.

    `{model}` and the names of settings stand in a path for their percent-encoded values. A base URL that ends in the
    path is the whole address.

    Raises `RequestError` for a model, `ConfigError` for a setting, that is missing or cannot stand in a path.
    """
    quirks = target.quirks
    template = (quirks.stream_path if stream else "") or quirks.path or path
    if quirks.base_suffix and target.base_url.endswith(quirks.base_suffix):
        template = path
    if "{" not in template:
        return target.base_url if target.base_url.endswith(template) else target.base_url + template
    values = {**target.settings, MODEL: target.model}
    try:
        return target.base_url + filled(template, lambda name: path_value(name, values[name], provider=target.provider))
    except KeyError as error:
        msg = f"{target.provider} needs the setting {error}: its path {template!r} names it"
        raise ConfigError(msg, provider=target.provider, model=target.model) from None


def host_headers(target: Target) -> dict[str, str]:
    """Give the headers that the host wants of each request, filled with the settings that have a value."""
    headers: dict[str, str] = {}
    for name, template in target.quirks.headers.items():
        with contextlib.suppress(KeyError):  # a setting without a value
            headers[name] = filled(template, target.settings.__getitem__)
    return headers


class Translator(Protocol):
    """Frames to events; one object per stream; see the module's contract."""

    def feed(self, frame: Frame) -> list[Event | Failure]:
        """Take a frame, give its events."""
        ...

    def finish(self) -> list[Event | Failure]:
        """Say that the body is over, give what was still to come."""
        ...


class Dialect(Protocol):
    """What a dialect's module offers."""

    def build_request(self, request: Request, target: Target) -> WireRequest:
        """Give the wire request, whose `warnings` say what of the request this host cannot honour.

        They go into `Start.warnings`. Raises `Unsupported` or `RequestError` where it cannot be built.
        """
        ...

    def translator(self, target: Target) -> Translator:
        """Give a translator for one stream."""
        ...

    def parse_response(self, body: bytes, target: Target) -> list[Event | Failure]:
        """Give the events of a whole response body."""
        ...

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes, target: Target) -> ProviderError:
        """Give the typed error of an error response."""
        ...
