"""Families of models: how those of one maker are spoken to, as profiles for the rows of the table.

Contract: data. A row takes what applies at its host.
"""

from __future__ import annotations

from loomstream.providers import Profile

_SAMPLING = ("temperature", "top_p", "logprobs")
_NO_DRAFT = (*_SAMPLING, "prediction")
OPENAI_REASONING = (
    # Neither knows a system role or tools, and both want max_completion_tokens.
    Profile(
        models=("o1-preview*", "o1-mini*"),
        quirks={
            "max_tokens_key": "max_completion_tokens",
            "system_role": "user",
            "refused": (*_NO_DRAFT, "tools", "tool_choice", "parallel_tool_calls", "reasoning_effort"),
            "output_by": "prompt",
        },
    ),
    Profile(
        models=("o1", "o1-2*", "o1-pro*", "o3*", "o4*"),
        quirks={
            "max_tokens_key": "max_completion_tokens",
            "system_role": "developer",
            "refused": (*_NO_DRAFT, "parallel_tool_calls"),
        },
    ),
    Profile(models=("o3", "o3-2*", "o4-mini*"), quirks={"refused": (*_NO_DRAFT, "parallel_tool_calls", "stop")}),
    Profile(
        models=("gpt-[5-9]*",),
        quirks={
            "max_tokens_key": "max_completion_tokens",
            "system_role": "developer",
            "refused": ("prediction",),
            "refused_with_effort": _SAMPLING,
        },
    ),
    Profile(
        models=("gpt-5", "gpt-5-2*", "gpt-5-mini*", "gpt-5-nano*", "gpt-5-pro*", "gpt-5-codex*"),
        quirks={"refused": (*_NO_DRAFT, "stop")},
    ),
)
"""What OpenAI's reasoning models refuse in Chat Completions, each with HTTP 400 and the parameter's name.

Source: OpenAI, "Reasoning models" and the API reference of Chat Completions; the refused system role is also on record.
"""

OPENAI_OUTPUT = (
    # Structured Outputs came with gpt-4o-2024-08-06.
    Profile(models=("gpt-3.5*", "gpt-4", "gpt-4-*", "gpt-4o-2024-05-13"), quirks={"output_by": "tool"}),
    Profile(models=("gpt-5.[6-9]*", "gpt-[6-9]*"), quirks={"cache_points": "prompt_cache_breakpoint"}),
)
"""Which of OpenAI's models know no JSON of a schema, and which take marks in the prompt for what is to be cached.

Source: OpenAI, "Structured model outputs" and the API reference, `prompt_cache_options`.
"""

RESPONSES = "openai_responses"
"""The dialect of that name."""
OPENAI_ENCRYPTED = (
    Profile(
        models=("gpt-[5-9]*", "o1", "o1-2*", "o1-pro*", "o[3-9]*", "*codex*", "gpt-daybreak*"),
        quirks={"encrypted_reasoning": True},
    ),
    Profile(models=("gpt-5-chat*",), quirks={"encrypted_reasoning": False}),
)
"""Which of OpenAI's models encrypt their reasoning."""
OPENAI_RESPONSES = (
    Profile(
        models=(
            "gpt-[5-9]*",
            "o[3-9]*",
            "o1-pro*",
            "*codex*",
            "*-pro",
            "*-pro-20*",
            "computer-use*",
            "*deep-research*",
            "gpt-daybreak*",
        ),
        dialect=RESPONSES,
    ),
    *OPENAI_ENCRYPTED,
    Profile(models=("*-search-preview*", "*-search-api*", "*audio*"), dialect="openai_chat"),
)
"""Which of OpenAI's models want Responses: those that reason keep their reasoning from turn to turn only there, and
some (`-pro`, Codex, deep research, computer use) answer nowhere else. The models for search and audio answer in Chat
Completions alone, and a model that does not reason refuses to be asked for encrypted reasoning.

Source: OpenAI, "Migrate to the Responses API" and the pages of the models; the type `ResponsesModel` of its SDK.
"""

ANY_RESPONSES = (Profile(models=(), dialect=RESPONSES),)
"""Responses for who selects it."""

GEMINI_THINKING = (
    Profile(models=("*gemini-1*", "*gemini-2.0*", "*gemma*", "*learnlm*"), quirks={"thinking_by": "none"}),
    Profile(models=("*gemma*",), quirks={"output_by": "prompt"}),  # "JSON mode is not enabled", nor are functions
    Profile(models=("*gemini-2.5*",), quirks={"thinking_by": "budget"}),
    Profile(models=("*gemini-2.5-pro*",), quirks={"least_thinking_budget": 128, "always_thinks": True}),
    Profile(models=("*gemini-2.5-flash-lite*",), quirks={"least_thinking_budget": 512}),
    Profile(models=("*gemini-3*-pro*", "*gemini-pro-latest*"), quirks={"thinking_levels": ("low", "medium", "high")}),
    Profile(models=("*gemini-3-pro*",), quirks={"thinking_levels": ("low", "high")}),
)
"""How Gemini's generations are told to think; a name that says no generation (`gemini-flash-latest`) is the newest.

Source: https://ai.google.dev/gemini-api/docs/thinking.
"""

CLAUDE = (
    # They cannot be held to a schema.
    Profile(
        models=(
            *("*claude-[12]*", "*claude-instant*", "*claude-3*", "*claude-sonnet-4-[02]*", "*claude-sonnet-4@*"),
            *("*claude-opus-4-[012]*", "*claude-opus-4@*"),
        ),
        quirks={"output_by": "tool"},
    ),
    # HTTP 400 for parameters of sampling, and for a budget of thinking.
    Profile(
        models=(
            *("*claude-opus-4-[789]*", "*claude-opus-[5-9]*", "*claude-sonnet-[5-9]*", "*claude-haiku-[5-9]*"),
            *("*claude-fable-*", "*claude-mythos-*"),
        ),
        quirks={"refused": ("temperature", "top_p", "top_k"), "thinking_budgets": False},
    ),
    # HTTP 400 for a tool that must be called, and for thinking that is off.
    Profile(
        models=("*claude-opus-5-5*", "*claude-fable-5-[12]*", "*claude-mythos-5-[12]*"),
        quirks={"forced_tools": False, "thinking_off": ""},
    ),
    Profile(models=("*claude-sonnet-5-5*",), quirks={"forced_tools": False, "thinking_off": "between_tools"}),
)
"""What the generations of Claude refuse, wherever they are served: the patterns fit a host's prefix and suffix.

Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs, and the pages "What's new" and
"Migration guide" of the models there.
"""

BEDROCK_FAMILIES = (
    Profile(models=("*anthropic.claude*", "*openai.*", "*moonshot*.kimi*"), quirks={"output_by": "native"}),
    Profile(models=("*anthropic.claude*",), quirks={"top_k_field": "top_k", "reasoning_field": "thinking"}),
    # Claude before adaptive thinking.
    Profile(
        models=("*claude-3*", "*claude-sonnet-4-[025]*", "*claude-haiku-4-5*", "*claude-opus-4-[0125]*"),
        quirks={"reasoning_field": "thinking_budget"},
    ),
    *CLAUDE,
    # Claude before 4.5 keeps a cache for 5 minutes.
    Profile(models=("*claude-3*", "*claude-sonnet-4-2*", "*claude-opus-4-[12]*"), quirks={"longest_cache_ttl": "5m"}),
    Profile(
        models=("*amazon.nova-*",),
        quirks={
            "top_k_field": "inferenceConfig.topK",
            "cache_points_in": ("system", "messages"),
            "longest_cache_ttl": "5m",
        },
    ),
    Profile(models=("*amazon.nova-2-*",), quirks={"reasoning_field": "reasoningConfig"}),
    Profile(models=("*openai.gpt-oss-*",), quirks={"reasoning_field": "reasoning_effort"}),
    Profile(models=("*mistral.*",), quirks={"top_k_field": "top_k"}),
    Profile(models=("*cohere.command-*",), quirks={"top_k_field": "k"}),
    # They refuse cache points.
    Profile(
        models=("*ai21.*", "*cohere.*", "*deepseek.*", "*meta.*", "*mistral.*", "*openai.*", "*qwen.*"),
        quirks={"cache_points_in": ()},
    ),
    Profile(models=(), dialect="bedrock_invoke"),
)
"""What the model families take beside Converse's own settings; the ARN of an application's profile hides the family.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html, …/prompt-caching.html and
…/structured-output.html, and recorded requests.
"""

OWN_OPTIONS = ("prediction", "prompt_cache_key", "service_tier", "metadata", "end_user_id")
"""Options of OpenAI's own; a host that does not heed them mostly says nothing."""

LLAMA_CPP_RESPONSES = (
    Profile(
        models=(),
        dialect=RESPONSES,
        quirks={"unknown": (*OWN_OPTIONS, "output", "logprobs"), "output_by": "tool", "output_grammar": False},
    ),
)
"""Responses of llama.cpp's server, which passes over `text.format` and `include` in silence."""

SOUNDS = ("wav", "mp3", "aiff", "aac", "ogg", "flac", "m4a")
"""Formats of sound that hosts take which turn them into what their models know."""

MISTRAL: dict[str, object] = {
    "stream_usage": False,
    "seed_key": "random_seed",
    "any_tool_word": "any",
    "tool_id_chars": 9,
    "refusal_key": False,
    "reasoning_back": "parts",
    "unknown": ("end_user_id",),
    "prefix_at": "",
    "documents": "document_url",
    "audio_as": "text",
    "audio_formats": SOUNDS,
}
"""Mistral's own wire, wherever it is served: a key that its schema does not know is HTTP 422, usage comes unasked.

Source: https://docs.mistral.ai/api/ and the types of its SDK.
"""
