"""One value of a hand-written file is set, and everything else stays as it was."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loomstream.config.edit import set_value, write_new
from loomstream.config.load import load
from loomstream.config.private_file import add_lines, write_private
from loomstream.config.table import SETTINGS
from loomstream.errors import ConfigError

pytestmark = pytest.mark.usefixtures("no_keys")

WRITTEN = """\
# mine
llm:
  provider: openai   # who answers

  # how varied
  temperature: 0.7   # not too much
  openai_model: "gpt-4o"
  rate_limit: {disabled: false}

observability:
  enabled: true
"""


END = "enabled: true\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "looms.yaml"
    made.write_text(WRITTEN)
    return made


@pytest.mark.parametrize(
    ("path", "text", "before", "after"),
    [
        ("llm.temperature", "0", "temperature: 0.7   #", "temperature: 0   #"),
        ("llm.openai_model", "gpt-5", 'openai_model: "gpt-4o"', "openai_model: gpt-5"),
        ("llm.openai_model", "true", 'openai_model: "gpt-4o"', "openai_model: 'true'"),
        ("llm.openai_model", "a\nb", 'openai_model: "gpt-4o"', 'openai_model: "a\\nb"'),
        ("llm.openai_model", "a: b # c", 'openai_model: "gpt-4o"', "openai_model: 'a: b # c'"),
        ("llm.rate_limit.max_retries", "0", "{disabled: false}", "{disabled: false, max_retries: 0}"),
        ("observability.enabled", "no", "enabled: true", "enabled: false"),
        ("observability.flush_interval", "30s", "enabled: true\n", "enabled: true\n  flush_interval: 30s\n"),
        ("llm.max_tokens", "100", "{disabled: false}\n", "{disabled: false}\n  max_tokens: 100\n"),
        ("middleware.budget.limit_usd", "0.50", END, f"{END}middleware:\n  budget:\n    limit_usd: '0.50'\n"),
        ("middleware.failover.to", "openai,ollama", END, f"{END}middleware:\n  failover:\n    to: [openai, ollama]\n"),
    ],
)  # fmt: skip
def test_only_the_value_changes(file: Path, path: str, text: str, before: str, after: str) -> None:
    set_value(file, path, text)
    assert file.read_text() == WRITTEN.replace(before, after)


@pytest.mark.parametrize(
    ("written", "after"),
    [
        ("", "llm:\n  temperature: 0.5\n"),
        ("# nothing yet\n", "# nothing yet\nllm:\n  temperature: 0.5\n"),
        ("# no end", "# no end\nllm:\n  temperature: 0.5\n"),
        ("llm:\n", "llm:\n  temperature: 0.5\n"),
        ("llm:\n  temperature:\n", "llm:\n  temperature: 0.5\n"),
        ("llm:\n  temperature: # later\n", "llm:\n  temperature: 0.5 # later\n"),
        ("llm:\n      provider: openai", "llm:\n      provider: openai\n      temperature: 0.5\n"),
        ("{}\n", "{llm: {temperature: 0.5}}\n"),
        ("llm: {}\n", "llm: {temperature: 0.5}\n"),
        ("llm:\r\n  provider: openai\r\n", "llm:\r\n  provider: openai\r\n  temperature: 0.5\r\n"),
        ("\ufeffllm:\n  provider: openai\n", "\ufeffllm:\n  provider: openai\n  temperature: 0.5\n"),
        ("llm:\n  provider: openai\n---\n", None),
    ],
)
def test_files_of_every_form(tmp_path: Path, written: str, after: str | None) -> None:
    file = tmp_path / "looms.yaml"
    file.write_bytes(written.encode())
    if after is None:
        with pytest.raises(ConfigError):
            set_value(file, "llm.temperature", "0.5")
        after = written
    else:
        set_value(file, "llm.temperature", "0.5")
    assert file.read_bytes().decode() == after


def test_a_file_that_is_not_there_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    os.umask(before := os.umask(0))
    os.umask(0)
    try:
        set_value(tmp_path / "new" / "looms.yaml", "llm.temperature", "0.5")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "looms.yaml").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("llm.openai_api_key", "x", "is a secret.*looms config set-key openai_api_key"),
        ("openai_api_key", "x", "is a secret.*looms config set-key openai_api_key"),
        ("llm.bedrock_secret_access_key", "x", "is a secret.*set-key bedrock_secret_access_key"),
        ("observability.hawk_api_key", "x", "is a secret.*set-key hawk_api_key"),
        ("observability.otlp_headers", "authorization=x", "may hold secrets"),
        ("llm.openai_extra_headers", "authorization=x", "may hold secrets"),
        ("llm.openai_model", "sk-canary-0123456789abcdef", "looks like a key"),
        ("llm.temprature", "1", "did you mean 'llm.temperature'"),
        ("llm.temperature", "3", "a number from 0 to 2"),
        ("llm.max_tokens", "many", "a whole number"),
        ("llm.provider", "Anthropic", "did you mean 'anthropic'"),
    ],
)
def test_what_is_refused_changes_nothing(file: Path, path: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){said}") as caught:
        set_value(file, path, text)
    assert "canary" not in str(caught.value)
    assert file.read_text() == WRITTEN
    assert os.listdir(file.parent) == ["looms.yaml"]  # noqa: PTH208 (names)


@pytest.mark.parametrize(
    "written",
    [
        "llm: &one\n  provider: openai\nproviders:\n  - &two {name: a, provider: openai, temperature: 1}\n",
        "llm:\n  temperature: &t 1\n  max_tokens: 5\n",
        "llm:\n  temperature: !!float 1\n",
    ],
)
def test_what_cannot_be_edited_safely_is_left_alone(tmp_path: Path, written: str) -> None:
    file = tmp_path / "looms.yaml"
    file.write_text(written)
    try:
        set_value(file, "llm.temperature", "0.5")
    except ConfigError:
        assert file.read_text() == written
    else:
        assert load(file, environ={}).llm.temperature == 0.5


def test_the_mode_and_the_link_stay(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.yaml"
    real.write_text("llm:\n  temperature: 1\n")
    real.chmod(0o640)
    link = tmp_path / "looms.yaml"
    link.symlink_to(real)
    set_value(link, "llm.temperature", "0")
    assert link.is_symlink()
    assert real.read_text() == "llm:\n  temperature: 0\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "looms.yaml"
    file.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_private(file, "\udcff")
    assert file.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["looms.yaml"]


def test_what_is_no_plain_file_is_never_replaced(tmp_path: Path) -> None:
    for make in (os.mkfifo, os.mkdir):
        make(tmp_path / "there")
        with pytest.raises(ConfigError, match="no plain file"):
            write_private(tmp_path / "there", "llm:\n")
        (os.unlink if make is os.mkfifo else os.rmdir)(tmp_path / "there")


def test_a_read_only_file_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "looms.yaml"
    file.write_text("llm: {temperature: 1}\n")
    file.chmod(0o400)
    for write in (lambda: set_value(file, "llm.temperature", "0"), lambda: write_new(file, "llm:\n")):
        with pytest.raises(ConfigError, match=r"looms\.yaml is read-only, and is not written: run chmod u\+w "):
            write()
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("llm: {temperature: 1}\n", 0o400)
    assert [each.name for each in tmp_path.iterdir()] == ["looms.yaml"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("llm: null\n", "llm: {temperature: 0}\n"),
        ("llm: ~  # nothing yet\nrate_limit: {}\n", "llm: {temperature: 0}  # nothing yet\nrate_limit: {}\n"),
        ("{llm: null}", "{llm: {temperature: 0}}"),
        ("llm:\n", "llm:\n  temperature: 0\n"),
        ("llm: {}\n", "llm: {temperature: 0}\n"),
    ],
)
def test_a_section_that_says_nothing_is_filled(tmp_path: Path, before: str, after: str) -> None:
    file = tmp_path / "looms.yaml"
    file.write_text(before)
    set_value(file, "llm.temperature", "0")
    assert file.read_text() == after


def test_what_is_wrong_with_the_file_already_is_told_as_that(tmp_path: Path) -> None:
    file = tmp_path / "looms.yaml"
    file.write_text("llm: []\n")
    with pytest.raises(
        ConfigError, match=r"nothing was changed, for it is wrong now: .*:1:6: llm: this must be a mapping"
    ):
        set_value(file, "llm.temperature", "0")
    assert file.read_text() == "llm: []\n"


def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "looms.yaml"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="no plain file"):
        set_value(pipe, "llm.temperature", "0")
    (tmp_path / ".gitignore").symlink_to(pipe)
    with pytest.raises(ConfigError, match="no plain file"):
        add_lines(tmp_path / ".gitignore", (".env",))


@pytest.mark.parametrize(
    "written",
    [
        "llm:\n  provider: a\x00b\n",
        f"llm: {'[' * 5000}{']' * 5000}\n",
        "llm: &a\n  rate_limit: *a\n",
        f"llm: {'x' * (1 << 20)}\n",
        "llm: [\n",
    ],
    ids=["a control character", "deep", "endless", "large", "broken"],
)
def test_what_cannot_be_read_is_not_edited(file: Path, written: str) -> None:
    file.write_text(written)
    with pytest.raises(ConfigError, match=r"this is no configuration"):
        set_value(file, "llm.temperature", "0")
    assert file.read_text() == written


def test_several_that_set_at_once_lose_nothing(file: Path) -> None:
    wanted = {f"middleware.limits.{name}": "7" for name in ("concurrency", "burst", "max_queue", "tokens_per_minute")}
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda path: set_value(file, path, "7"), wanted))
    assert load(file, environ={}).origins.keys() >= wanted.keys()


def test_a_new_file_takes_the_mode_of_a_new_file(tmp_path: Path) -> None:
    file = tmp_path / "looms.yaml"
    file.write_text("")
    file.chmod(0o644)
    write_new(file, "llm:\n  temperature: 1\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="temprature"):
        write_new(file, "llm:\n  temprature: 1\n")


def test_lines_are_added_once(tmp_path: Path) -> None:
    file = tmp_path / ".gitignore"
    file.write_text("*.pyc\n.env")
    assert add_lines(file, ("*.key", ".env")) == ("*.key",)
    assert file.read_text() == "*.pyc\n.env\n*.key\n"
    assert add_lines(file, ("*.key", ".env")) == ()


def test_lines_are_added_in_the_files_own_form(tmp_path: Path) -> None:
    file = tmp_path / ".gitignore"
    file.write_bytes(b"caf\xe9\r\n.env")
    assert add_lines(file, ("*.key", ".env")) == ("*.key",)
    assert file.read_bytes() == b"caf\xe9\r\n.env\r\n*.key\r\n"


PLAIN = [row for row in SETTINGS if row.kind == "text" and not row.choices and not row.secret and not row.keyring]
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1, max_size=40)


@settings(max_examples=20, deadline=None)
@given(row=st.sampled_from([row for row in PLAIN if row.feeds == "model"]), text=TEXTS)
def test_any_text_can_be_set_and_is_read_back(tmp_path_factory: pytest.TempPathFactory, row, text: str) -> None:  # noqa: ANN001
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(WRITTEN)
    if not text.strip():
        return
    set_value(file, row.path, text)
    assert load(file, environ={}).value(row.path) == text.strip()
    assert "# not too much" in file.read_text()
