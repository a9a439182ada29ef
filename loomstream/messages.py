"""What can be sent, and what a stream folds into.

Contract: plain immutable values. A `Response`'s `message` can go back as history, to the same provider
or another. `Request` is neutral: a dialect turns it into bytes and says in `Start.warnings` what its
provider cannot honour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Literal, Protocol, TypedDict, cast, get_args, runtime_checkable

import msgspec
from msgspec import Meta, Struct
from msgspec import Raw as RawJSON

from loomstream import media
from loomstream.errors import RequestError, UsageError
from loomstream.events import NULL, Citation, Cost, Limits, Opaque, Stop, TokenLogprob, Usage
from loomstream.kind_names import kind_of
from loomstream.numerals import is_number
from loomstream.option_hints import allowed_values, unknown_option

Role = Literal["system", "user", "assistant", "tool"]
"""Who speaks. A `tool` message holds tool results."""

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How hard a reasoning model should think."""

OutputMode = Literal["auto", "native", "tool", "prompt"]
"""How JSON of a schema is asked for: by the provider's own mode, by a tool that must be called, or in words."""

ToolMode = Literal["auto", "native", "prompt"]
"""How tools are offered: by the provider's protocol, or in words."""

Latency = Literal["standard", "optimized"]
"""Which of a model's latency profiles answers."""


class Text(Struct, frozen=True, tag="text", tag_field="type"):
    """A block of text, with the sources and the token probabilities that the provider gave for it."""

    text: str
    citations: tuple[Citation, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


class Reasoning(Struct, frozen=True, tag="reasoning", tag_field="type"):
    """A block of reasoning; `opaque` goes back to its issuer byte for byte."""

    text: str
    opaque: tuple[Opaque, ...] = ()


class ToolCall(Struct, frozen=True, tag="tool_call", tag_field="type"):
    """A call of one of your tools; `arguments` is JSON text. Never run one that is not `executable`."""

    id: str
    name: str
    arguments: str = "{}"
    opaque: tuple[Opaque, ...] = ()
    executable: bool = True


class Image(Struct, frozen=True, tag="image", tag_field="type"):
    """An image: its bytes and media type, or a URL that the provider fetches."""

    data: bytes = b""
    media_type: str = "image/png"
    url: str = ""


class Audio(Struct, frozen=True, tag="audio", tag_field="type"):
    """Sound: its bytes and media type, or a URL that the provider fetches."""

    data: bytes = b""
    media_type: str = "audio/wav"
    url: str = ""


class Document(Struct, frozen=True, tag="document", tag_field="type"):
    """A document (PDF, plain text, …): its bytes and media type, or a URL that the provider fetches.

    `name` is what the model is told that it is called; `citations` asks for citations of its passages.
    """

    data: bytes = b""
    media_type: str = "application/pdf"
    url: str = ""
    name: str = ""
    citations: bool = False


CacheTTL = Literal["5m", "1h"]
"""How long a provider keeps a cached beginning of a prompt: 5 minutes or an hour after its last use."""


class CachePoint(Struct, frozen=True, tag="cache_point", tag_field="type"):
    """A mark behind the blocks that stand before it: the provider is to cache the prompt up to here.

    No `ttl` leaves the time to the provider. Where a provider caches by itself, or not at all, a warning says so.
    """

    ttl: CacheTTL | None = None


ResultContent = Text | Image | Document
"""What a tool's result is made of."""


class ToolResult(Struct, frozen=True, tag="tool_result", tag_field="type"):
    """What your tool answered to the call `tool_call_id`; where a provider takes text alone, a warning says so."""

    tool_call_id: str
    content: tuple[ResultContent, ...] = ()
    is_error: bool = False
    name: str = ""


class Refusal(Struct, frozen=True, tag="refusal", tag_field="type"):
    """The model's words of refusal."""

    text: str


class FileBlock(Struct, frozen=True, tag="file", tag_field="type"):
    """A file that the model made."""

    media_type: str = ""
    data: bytes = b""
    url: str = ""
    id: str = ""
    raw: RawJSON = NULL


class ServerToolCallBlock(Struct, frozen=True, tag="server_tool_call", tag_field="type"):
    """A tool call that the provider ran itself."""

    id: str
    name: str
    arguments: str = "{}"
    raw: RawJSON = NULL


class ServerToolResultBlock(Struct, frozen=True, tag="server_tool_result", tag_field="type"):
    """What a provider's own tool answered."""

    tool_call_id: str
    name: str
    content: RawJSON = NULL
    is_error: bool = False
    raw: RawJSON = NULL


ContentBlock = (
    Text
    | Reasoning
    | ToolCall
    | Image
    | Audio
    | Document
    | CachePoint
    | ToolResult
    | Refusal
    | FileBlock
    | ServerToolCallBlock
    | ServerToolResultBlock
)
"""One unit of a message."""


class Message(Struct, frozen=True):
    """One turn of a conversation."""

    role: Role
    content: tuple[ContentBlock, ...]

    @property
    def text(self) -> str:
        """The text blocks, joined."""
        return "".join(block.text for block in self.content if isinstance(block, Text))


class Tool(Struct, frozen=True):
    """A tool that the model may call; `parameters` is a JSON Schema of an object."""

    name: str
    description: str = ""
    parameters: Mapping[str, object] = msgspec.field(default_factory=lambda: {"type": "object", "properties": {}})


@runtime_checkable
class AsTool(Protocol):
    """What stands for a `Tool` among a request's tools, such as `loomstream.tools.FunctionTool`."""

    @property
    def __loomstream_tool__(self) -> Tool: ...


class ToolChoice(Struct, frozen=True):
    """Which tool the model must use: `auto`, `any`, `none`, or `tool` with its `name`."""

    mode: Literal["auto", "any", "none", "tool"] = "auto"
    name: str = ""


class Timeouts(Struct, frozen=True, kw_only=True):
    """Time limits in seconds; None switches one off.

    `connect_s`: until a connection is up (name look-up and TLS included). `first_event_s`: from sending the
    request to the first content event. `idle_s`: between two content events; comments, pings and empty deltas
    are no progress, and time in which you do not read does not count. `whole_s` takes the place of these two where the
    answer is not streamed (`stream=False`, and models that cannot): from sending to its end. `total_s`: the whole call.

    Raises `RequestError` for a limit that is not above 0.
    """

    connect_s: float | None = 10.0
    first_event_s: float | None = 60.0
    idle_s: float | None = 60.0
    whole_s: float | None = 600.0
    total_s: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            limit_s: object = getattr(self, name)
            if limit_s is not None and not (is_number(limit_s, infinite=True) and cast("float", limit_s) > 0):
                msg = f"Timeouts({name}={limit_s!r}): give seconds above 0, or None for no limit"
                raise RequestError(msg)


class Output(Struct, frozen=True, kw_only=True):
    """What the answer's text must be: JSON of this schema.

    `schema` is a JSON Schema, `name` what the provider is told that it is called. `strict` asks for the provider's
    strict form (None: wherever the schema allows it).
    """

    schema: Mapping[str, object]
    name: str = "answer"
    description: str = ""
    strict: bool | None = None


class Request(Struct, frozen=True, kw_only=True):
    """One call of a model, in no provider's words. What is None or empty is not sent.

    What a provider cannot honour is said in `Start.warnings`, or raises `Unsupported` where `unsupported` is `error`.

    - `reasoning_effort`, `reasoning_budget_tokens`: how much to think, by a level or by tokens.
    - `logprobs`: give the probabilities of tokens, with this many alternatives each (0: of the chosen tokens alone).
    - `output`: the answer is JSON of a schema; `output_mode` how that is reached (`auto`: as the model allows best).
    - `tool_mode`: `native` by the provider's protocol, `prompt` by text, `auto` as the model allows best.
    - `cache_prompt`: cache breakpoints are set automatically, for that long. `prompt_cache_key`: requests with the same
      key are likely to share a cache (OpenAI). `cached_content`: the name of a cached prompt (Gemini).
    - `metadata`: labels that the provider keeps with the request; `end_user_id`: who asks, for abuse detection.
    - `service_tier`: the provider's own word (`flex`, `priority`, …). `latency`: Bedrock's latency-optimised profiles.
    - `prediction`: a text that the answer will mostly repeat (OpenAI).
    - `keep_alive_s`: how long the model stays loaded (negative: for ever), `context_tokens`: its window (Ollama).
    - `routing`: how a router chooses the host (`fastest`, `cheapest`, or a host's name; Hugging Face).
    """

    messages: tuple[Message, ...]
    system: str = ""
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: tuple[str, ...] = ()
    seed: int | None = None
    reasoning_effort: Effort | None = None
    reasoning_budget_tokens: int | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    output: Output | None = None
    output_mode: OutputMode = "auto"
    tool_mode: ToolMode = "auto"
    cache_prompt: CacheTTL | None = None
    prompt_cache_key: str = ""
    cached_content: str = ""
    metadata: Mapping[str, str] = {}
    end_user_id: str = ""
    service_tier: str = ""
    latency: Latency | None = None
    prediction: str = ""
    keep_alive_s: float | None = None
    context_tokens: Annotated[int, Meta(ge=1)] | None = None
    routing: str = ""
    unsupported: Literal["warn", "error"] = "warn"
    stream: bool = True
    raw_events: bool = False
    timeouts: Timeouts = Timeouts()
    extra_body: Mapping[str, object] = {}
    extra_headers: Mapping[str, str] = {}


class RequestOptions(TypedDict, total=False):
    """What `connect` (as defaults) and `Model.stream` take beside the prompt; the fields of `Request`.

    `tools` may hold functions; `loomstream.tool` says which. `tool_choice` may be a mode (`auto`, `any`, `none`) or the
    name of a tool; `stop_sequences` may be one text; `output` may be a type (`loomstream.tools.with_output`).
    """

    system: str
    tools: Sequence[Tool | AsTool | Callable[..., object]]
    tool_choice: ToolChoice | str | None
    parallel_tool_calls: bool | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    stop_sequences: Sequence[str]
    seed: int | None
    reasoning_effort: Effort | None
    reasoning_budget_tokens: int | None
    logprobs: int | None
    output: Output | type[object] | None
    output_mode: OutputMode
    tool_mode: ToolMode
    cache_prompt: CacheTTL | None
    prompt_cache_key: str
    cached_content: str
    metadata: Mapping[str, str]
    end_user_id: str
    service_tier: str
    latency: Latency | None
    prediction: str
    keep_alive_s: float | None
    context_tokens: int | None
    routing: str
    unsupported: Literal["warn", "error"]
    stream: bool
    raw_events: bool
    timeouts: Timeouts
    extra_body: Mapping[str, object]
    extra_headers: Mapping[str, str]


class Choice(Struct, frozen=True):
    """One of several answers to the same request (`n` > 1)."""

    index: int
    message: Message


class Timing(Struct, frozen=True, kw_only=True):
    """Seconds since the request was begun; None for what has not happened."""

    first_event_s: float | None = None
    first_text_s: float | None = None
    total_s: float | None = None


class Response(Struct, frozen=True, kw_only=True):
    """What a stream has delivered so far.

    `complete` is True only where the terminal marker was seen; `stop` is None until then. `usage` is None
    where the provider sent none. `cost.amount_usd` is None where the price is unknown. `route` is how a
    `loomstream.middleware.route` chose the model: the candidates, their figures, the reason.
    """

    provider: str = ""
    model: str = ""
    response_id: str = ""
    request_id: str = ""
    message: Message = Message("assistant", ())
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
    cost: Cost = Cost(provider="", model="")
    stop: Stop | None = None
    limits: Limits | None = None
    warnings: tuple[str, ...] = ()
    unknown_frames: int = 0
    route: str = ""

    @property
    def text(self) -> str:
        """The answer's text."""
        return self.message.text

    @property
    def reasoning(self) -> str:
        """The answer's reasoning text."""
        return "".join(block.text for block in self.message.content if isinstance(block, Reasoning))

    @property
    def refusal(self) -> str:
        """The model's words of refusal, or an empty string."""
        return "".join(block.text for block in self.message.content if isinstance(block, Refusal))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls of your tools, in order."""
        return tuple(block for block in self.message.content if isinstance(block, ToolCall))

    @property
    def complete(self) -> bool:
        """Whether the answer is whole."""
        return self.stop is not None


Prompt = str | Message | Sequence[Message]
"""What `Model.stream` takes: a user's text, one message, or a conversation."""


def user(text: str) -> Message:
    """Give a user's turn of plain text."""
    return Message("user", (Text(text),))


def assistant(text: str) -> Message:
    """Give an assistant's turn of plain text."""
    return Message("assistant", (Text(text),))


def system(text: str) -> Message:
    """Give a system turn of plain text."""
    return Message("system", (Text(text),))


def tool_result(call: ToolCall, text: str, *, is_error: bool = False) -> Message:
    """Give the turn that answers a tool call with text."""
    return Message("tool", (ToolResult(call.id, (Text(text),), is_error=is_error, name=call.name),))


def to_messages(prompt: Prompt) -> tuple[Message, ...]:
    """Give the conversation that a prompt stands for.

    Raises `RequestError` where it is empty or holds anything but messages of content blocks.
    """
    if isinstance(prompt, str):
        return (user(prompt),)
    messages = (prompt,) if isinstance(prompt, Message) else _items("the prompt", prompt, "a text, or Messages")
    if not messages:
        msg = "the prompt is empty: give a text, a Message, or a list of Messages"
        raise RequestError(msg)
    return tuple(_checked(f"messages[{position}]", message) for position, message in enumerate(messages))


def _items(place: str, value: object, remedy: str) -> tuple[object, ...]:
    if not isinstance(value, Iterable):
        msg = f"{place} is {kind_of(value)}: give {remedy}"
        raise RequestError(msg)
    return tuple(cast("Iterable[object]", value))


def _checked(place: str, message: object) -> Message:
    """Give the message, or raise: what is no block would be left out of the wire request in silence."""
    if not isinstance(message, Message):
        msg = f"{place} is {kind_of(message)}: use loomstream.user('…') or a Message"
        raise RequestError(msg)
    if message.role not in _ROLES:
        msg = f"{place}.role is {message.role!r}: known are {', '.join(_ROLES)}"
        raise RequestError(msg)
    _check_blocks(f"{place}.content", message.content, ContentBlock, "content blocks, as loomstream.user('…') does")
    for position, block in enumerate(message.content):
        if isinstance(block, ToolResult):
            inner = f"{place}.content[{position}].content"
            remedy = "texts, images and documents, as loomstream.tool_result(call, '…') does"
            _check_blocks(inner, block.content, ResultContent, remedy)
            for number, part in enumerate(block.content):
                _check_media(f"{inner}[{number}]", part)
        else:
            _check_media(f"{place}.content[{position}]", block)
    return message


def _check_media(place: str, block: ContentBlock) -> None:
    """Raise where a block is empty, or its bytes are not of the type that it names."""
    if not isinstance(block, Image | Audio | Document):
        return
    kind = type(block).__name__
    if not block.data and not block.url:
        msg = f"{place}: this {kind} holds nothing: give its data or its url"
        raise RequestError(msg)
    if found := media.contradiction(block.data, block.media_type):
        what = f"{place} is no {block.media_type}: by its first bytes it is {found}"
        msg = f"{what}; loomstream.files reads files and names their type"
        raise RequestError(msg)


def _check_blocks(place: str, content: object, kinds: UnionType, remedy: str) -> None:
    if isinstance(content, str):
        msg = f"{place} is a str: give {remedy}"
        raise RequestError(msg)
    for position, block in enumerate(_items(place, content, remedy)):
        if not isinstance(block, kinds):
            msg = f"{place}[{position}] is {kind_of(block)}: give {remedy}"
            raise RequestError(msg)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(tuple[Message, ...])


def encode(messages: Sequence[Message]) -> bytes:
    """Give a conversation as JSON, with all that goes back to providers; `decode` reads it."""
    return _encoder.encode(tuple(messages))


def decode(data: bytes | str) -> tuple[Message, ...]:
    """Give the conversation that `encode` wrote. Raises `RequestError` with the place of what is no message."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"this is no conversation: {error}"
        raise RequestError(msg) from None


_ROLES: tuple[str, ...] = get_args(Role)
_OPTION_NAMES = frozenset(RequestOptions.__annotations__)
_MODES: dict[str, ToolChoice] = {"auto": ToolChoice("auto"), "any": ToolChoice("any"), "none": ToolChoice("none")}


def check_options(options: Mapping[str, object]) -> None:
    """Raise `UsageError` for an option that no request has, `RequestError` for tools that are no `Tool`s."""
    _check_names(options)
    _tools(options)


def _check_names(options: Mapping[str, object]) -> None:
    for name in options:
        if name not in _OPTION_NAMES:
            msg = unknown_option(name, _OPTION_NAMES)
            raise UsageError(msg)


def _tools(options: Mapping[str, object]) -> tuple[Tool, ...]:
    items = _items("tools", options.get("tools") or (), "a list of functions, or of loomstream.Tool")
    tools = tuple(_tool(position, item) for position, item in enumerate(items))
    _check_tool_names(tools)
    return tools


def _check_tool_names(tools: Sequence[Tool]) -> None:
    seen: dict[str, int] = {}
    for position, tool in enumerate(tools):
        first = seen.setdefault(tool.name, position)
        if first != position:
            msg = f"tools[{first}] and tools[{position}] are both called {tool.name!r}: a call could mean either"
            raise RequestError(msg)


def _tool(position: int, item: object) -> Tool:
    tool = item.__loomstream_tool__ if isinstance(item, AsTool) else item
    if isinstance(tool, Tool) and isinstance(tool.name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        return tool
    remedy = "give a loomstream.Tool(name, description, parameters), or loomstream.tool(function)"
    msg = f"tools[{position}] is {kind_of(item)}: {remedy}"
    raise RequestError(msg)


def make_request(prompt: Prompt, options: RequestOptions) -> Request:
    """Give the request for a prompt and options; one that is None is as if it were not given.

    Raises `RequestError` for a prompt, a tool or a value that cannot be sent, `UsageError` for an unknown option.
    """
    if not options and isinstance(prompt, str):
        return Request(messages=to_messages(prompt))
    _check_names(cast("Mapping[str, object]", options))
    fields = {name: value for name, value in options.items() if value is not None}
    if "stop_sequences" in fields:
        stops = fields["stop_sequences"] or ()
        fields["stop_sequences"] = (stops,) if isinstance(stops, str) else _items("stop_sequences", stops, "a list")
    if "tools" in fields:
        fields["tools"] = _tools(fields)
    choice = fields.get("tool_choice")
    if isinstance(choice, str):
        fields["tool_choice"] = _MODES.get(choice) or ToolChoice("tool", choice)
    try:
        request = msgspec.convert({"messages": to_messages(prompt), **fields}, Request)
    except msgspec.ValidationError as error:
        msg = f"the request cannot be built: {error}{allowed_values(str(error), Request)}"
        raise RequestError(msg) from None
    _check_finite(request)
    _check_tool_choice(request)
    return request


def _check_finite(request: Request) -> None:
    for name, value in (("temperature", request.temperature), ("top_p", request.top_p)):
        if value is not None and not math.isfinite(value):
            msg = f"{name} is {value}, which JSON cannot write: give a finite number"
            raise RequestError(msg)


def _check_tool_choice(request: Request) -> None:
    choice = request.tool_choice
    if choice is None or choice.mode != "tool":
        return
    names = [tool.name for tool in request.tools]
    if choice.name not in names:
        tools = f"one of the tools ({', '.join(names)})" if names else "tools=[…] with that tool: there are no tools"
        msg = f"tool_choice names {choice.name!r}: give auto, any, none, or {tools}"
        raise RequestError(msg)
