"""One value is taken out of a hand-written file, and everything else stays as it was."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from loomstream.config.edit import set_value
from loomstream.config.load import load
from loomstream.config.unset import unset_value
from loomstream.errors import ConfigError

pytestmark = pytest.mark.usefixtures("no_keys")

WRITTEN = """\
# mine
llm:
  provider: openai   # who answers

  # how varied
  temperature: 0.7   # not too much
  openai_model: "gpt-4o"
  rate_limit: {disabled: false, max_retries: 3}

middleware:
  failover:
    to:
      - ollama
      - openai
observability:
  # off, for now
  enabled: true
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "looms.yaml"
    made.write_text(WRITTEN)
    return made


@pytest.mark.parametrize(
    ("path", "gone", "left"),
    [
        ("llm.temperature", "  temperature: 0.7   # not too much\n", ""),
        ("llm.provider", "  provider: openai   # who answers\n", ""),
        ("llm.rate_limit.max_retries", ", max_retries: 3", ""),
        ("rate_limit.max_retries", ", max_retries: 3", ""),
        ("llm.rate_limit.disabled", "disabled: false, ", ""),
        ("middleware.failover.to", "middleware:\n  failover:\n    to:\n      - ollama\n      - openai\n", ""),
        ("observability.enabled", "  enabled: true\n", ""),
    ],
)
def test_only_the_value_goes(file: Path, path: str, gone: str, left: str) -> None:
    file.chmod(0o640)
    assert unset_value(file, path)
    assert file.read_text() == WRITTEN.replace(gone, left)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert load(file, environ={}).origin(path).layer != "file"
    assert not unset_value(file, path)


@pytest.mark.parametrize(
    ("written", "after"),
    [
        ("llm: {temperature: 1}\n", ""),
        ("llm: {temperature: 1, provider: openai}", "llm: {provider: openai}"),
        ("{llm: {temperature: 1}, observability: {enabled: true}}", "{observability: {enabled: true}}"),
        ("llm:\r\n  temperature: 1\r\n  provider: openai\r\n", "llm:\r\n  provider: openai\r\n"),
        ("\ufeffllm:\n  temperature: 1\nobservability: {enabled: true}\n", "\ufeffobservability: {enabled: true}\n"),
        ("llm:\n  provider: openai\n  temperature: 1", "llm:\n  provider: openai\n"),
        ("llm:\n  temperature:\n    1\n  provider: openai\n", "llm:\n  provider: openai\n"),
        ('llm: {provider: "a, b"}', None),
        ("llm: {temperature: 1} # kept\n", "llm: {} # kept\n"),
        ("llm: # kept\n  temperature: 1 # not kept\n", "llm: # kept\n"),
        ("llm:\n  # kept\n  temperature: 1\n", "llm:\n  # kept\n"),
        ("llm:\n  temperature: 1 # not kept\n", ""),
    ],
)
def test_files_of_every_form(tmp_path: Path, written: str, after: str | None) -> None:
    file = tmp_path / "looms.yaml"
    file.write_bytes(written.encode())
    if after is None:
        assert not unset_value(file, "llm.temperature")
    else:
        assert unset_value(file, "llm.temperature")
    assert file.read_bytes().decode() == (written if after is None else after)


@pytest.mark.parametrize(
    "written",
    [
        "llm: {temperature: # why\n  1, provider: openai}\n",
        "llm:\n  ? temperature\n  : 1\n  ? provider\n  : openai\n",
        "? llm\n: {temperature: 1}\n",
        "llm:\n  temperature: 1\n  nonsense: 2\n",
    ],
)
def test_what_cannot_be_edited_safely_is_left_alone(tmp_path: Path, written: str) -> None:
    file = tmp_path / "looms.yaml"
    file.write_text(written)
    with pytest.raises(ConfigError, match=r"looms\.yaml.*(edit the line|without changing more|there is no key)"):
        unset_value(file, "llm.temperature")
    assert file.read_text() == written


def test_a_comment_behind_the_name_of_an_inner_section_stays_with_it(tmp_path: Path) -> None:
    file = tmp_path / "looms.yaml"
    file.write_text("llm:\n  rate_limit: # kept\n    max_retries: 1\n  provider: openai\n")
    assert unset_value(file, "llm.rate_limit.max_retries")
    assert file.read_text() == "llm:\n  rate_limit: # kept\n  provider: openai\n"


def test_a_secret_can_be_taken_out(tmp_path: Path) -> None:
    file = tmp_path / "looms.yaml"
    file.write_text("llm:\n  openai_api_key: sk-canary-0123456789\n  provider: openai\n")
    file.chmod(0o600)
    assert unset_value(file, "llm.openai_api_key")
    assert file.read_text() == "llm:\n  provider: openai\n"


def test_what_is_set_and_unset_is_as_before(file: Path) -> None:
    set_value(file, "llm.max_tokens", "100")
    assert unset_value(file, "llm.max_tokens")
    assert file.read_text() == WRITTEN


def test_a_file_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert not unset_value(tmp_path / "looms.yaml", "llm.temperature")
    with pytest.raises(ConfigError, match="did you mean"):
        unset_value(tmp_path / "looms.yaml", "llm.temperatur")
