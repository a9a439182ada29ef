"""Prompts of a given size.

Contract: pure; the same size gives the same text. How many tokens a text is each provider counts in its own way: the
size is about right, and the usage in the report says what it was.
"""

from __future__ import annotations

DEFAULT_PROMPT = "Write a short story about a river that forgets its way to the sea."
CHARS_PER_TOKEN = 4
_TASK = "Write a story, as long as you can, with these words in it:"
_TASK_TOKENS = 16
_WORDS = (
    "river", "stone", "water", "light", "moss", "rain", "bank", "fish", "bridge", "boat", "wind", "night", "summer",
    "house", "road", "child", "bread", "winter", "song", "hill", "horse", "garden", "door",
)  # fmt: skip
"""Of which each, with the space before it, is one token for the providers' vocabularies that are known."""
_STEP = 5


def sized_prompt(tokens: int) -> str:
    """Give a prompt of about so many tokens that asks for a long answer; at least the question, some 16 tokens."""
    words = (_WORDS[number * _STEP % len(_WORDS)] for number in range(tokens - _TASK_TOKENS))
    return " ".join((_TASK, *words))


def estimated_tokens(prompt: str) -> int:
    """Give about how many tokens a prompt is, by its length."""
    return -(-len(prompt) // CHARS_PER_TOKEN)
