import click
import pytest

from loomstream.cli.choice import Choice, Wishes, choose, unused_keys
from loomstream.wire import Secret

KEY, OTHER = Secret("first"), Secret("second")


@pytest.mark.parametrize(
    ("wishes", "choice"),
    [
        (Wishes(), Choice()),
        (Wishes(provider="openai"), Choice(spec="openai")),
        (Wishes(provider="ollama", model="qwen2.5:7b"), Choice(spec="ollama:qwen2.5:7b")),
        (Wishes(provider="openai", model="openai:gpt-4o"), Choice(spec="openai:gpt-4o")),
        (Wishes(model="anthropic:claude"), Choice(spec="anthropic:claude")),
        (Wishes(model="nosuch:thing"), Choice(spec="nosuch:thing")),
        (Wishes(configured_provider="openai"), Choice(spec="openai")),
        (Wishes(configured_provider="openai:gpt-4o", model="gpt-5"), Choice(spec="openai:gpt-5")),
        (Wishes(configured_provider="openai", model="anthropic:claude"), Choice(spec="anthropic:claude")),
        (Wishes(configured_provider="ollama", model="qwen2.5:7b"), Choice(spec="ollama:qwen2.5:7b")),
        (Wishes(provider="groq", configured_provider="openai"), Choice(spec="groq")),
        (Wishes(base_url="http://localhost:1", model="llama"), Choice(spec="openai-compatible:llama")),
        (Wishes(base_url="http://localhost:1", model="qwen:7b"), Choice(spec="openai-compatible:qwen:7b")),
        (Wishes(keys={"openai": KEY}), Choice(spec="openai", api_key=KEY)),
        (Wishes(keys={"openai": KEY}, model="gpt-4o"), Choice(spec="openai:gpt-4o", api_key=KEY)),
        (Wishes(keys={"openai": KEY}, base_url="http://localhost:1", model="m"), Choice(spec="openai-compatible:m")),
        (Wishes(keys={"openai": KEY}, model="anthropic:claude"), Choice(spec="anthropic:claude")),
        (
            Wishes(keys={"openai": KEY, "anthropic": OTHER}, provider="anthropic"),
            Choice(spec="anthropic", api_key=OTHER),
        ),
        (Wishes(model="./a.gguf"), Choice(spec="local", model_path="./a.gguf")),
        (Wishes(model="A.GGUF", configured_provider="openai"), Choice(spec="local", model_path="A.GGUF")),
        (Wishes(model=r"C:\a.gguf"), Choice(spec="local", model_path=r"C:\a.gguf")),
        (Wishes(provider="local", model="a.gguf"), Choice(spec="local", model_path="a.gguf")),
        (Wishes(model="local:a.gguf"), Choice(spec="local", model_path="a.gguf")),
        (Wishes(provider="openai-compatible", model="a.gguf"), Choice(spec="openai-compatible:a.gguf")),
        (Wishes(base_url="http://localhost:1", model="a.gguf"), Choice(spec="openai-compatible:a.gguf")),
    ],
)
def test_what_answers(wishes: Wishes, choice: Choice) -> None:
    assert choose(wishes) == choice


def test_a_model_without_a_provider_is_refused() -> None:
    with pytest.raises(click.UsageError, match="names no provider: write --model PROVIDER:gpt-4o"):
        choose(Wishes(model="gpt-4o"))


def test_a_provider_in_the_place_of_a_model_is_told_apart() -> None:
    with pytest.raises(click.UsageError, match="--model ollama is the name of a provider: use --provider ollama"):
        choose(Wishes(model="ollama"))


def test_a_provider_in_the_place_of_a_model_is_told_apart_at_an_address_too() -> None:
    with pytest.raises(click.UsageError, match="--provider openai-compatible --model mistral"):
        choose(Wishes(model="mistral", base_url="http://localhost:1"))
    named = Wishes(model="mistral", base_url="http://localhost:1", provider="openai-compatible")
    assert choose(named).spec == "openai-compatible:mistral"


def test_two_keys_need_a_provider() -> None:
    with pytest.raises(click.UsageError, match="openai, anthropic"):
        choose(Wishes(keys={"openai": KEY, "anthropic": OTHER}))


def test_keys_that_no_one_uses_are_known() -> None:
    wishes = Wishes(keys={"openai": KEY, "anthropic": OTHER}, provider="anthropic")
    assert unused_keys(wishes, choose(wishes)) == ["openai"]
    assert unused_keys(Wishes(), Choice()) == []
