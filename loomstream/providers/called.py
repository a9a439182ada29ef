"""What people call a provider that has another name here: for suggestions alone, none of these is taken."""

CALLED = {
    "aws": "bedrock",
    "chatgpt": "openai",
    "claude": "anthropic",
    "google": "gemini",
    "gpt": "openai",
    "grok": "xai",
    "hf": "huggingface",
    "kimi": "moonshot",
    "qwen": "alibaba",
}
"""Providers by the names of their owners or models."""
