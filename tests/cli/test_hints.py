import pytest

from loomstream import errors
from loomstream.cli.hints import usage_hint, with_hint
from loomstream.config.keys import missing_key


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (errors.RateLimited("too fast", retry_after_s=20.0), "too fast (ask again in 20 s)"),
        (errors.RateLimited("too fast"), "too fast (ask again later)"),
        (errors.ConfigError("says all"), "says all"),
        (errors.BadRequest("no", retry_after_s=1.0), "no"),
        (errors.ModelNotFound("no such model"), "no such model (check --model)"),
        (errors.ModelNotFound("an HTML or XML page"), "an HTML or XML page (check --base-url)"),
    ],
)
def test_an_error_says_what_to_do_next(error: errors.LoomstreamError, sentence: str) -> None:
    assert with_hint(error) == sentence


def test_advice_is_given_in_the_words_of_the_command_line() -> None:
    keys = "no API key for groq: set A (or B) or run `looms config set-key groq_api_key`"
    without_keyring = missing_key("groq", ["A"], "", ["the keyring is locked"])
    assert with_hint(missing_key("groq", ["A", "B"], "groq_api_key")).startswith(f"{keys} (")
    assert with_hint(without_keyring).startswith("no API key for groq: set A (the keyring is locked) (")
    several = errors.ConfigError("name one, as in connect('groq')")
    assert with_hint(several) == "name one, as in --provider groq"


def test_a_hint_belongs_to_its_command() -> None:
    assert "--dialect" in with_hint(errors.StreamTruncated("cut"), "decode")
    assert "ask again" in with_hint(errors.StreamTruncated("cut"), "ask")
    assert with_hint(errors.RateLimited("too fast"), "decode") == "too fast"
    assert with_hint(errors.StreamTruncated("cut"), None) == "cut"


def test_click_s_sentences_get_hints_too() -> None:
    assert usage_hint("Got unexpected extra argument (there)", "ask") == "put the prompt in quotes"
    assert usage_hint("Got unexpected extra argument (there)", "decode") == ""
    assert usage_hint("anything else", "ask") == ""
