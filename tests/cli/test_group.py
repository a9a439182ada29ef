import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import loomstream
from loomstream.cli.group import looms

HEAVY = ("httpx", "aiohttp", "anyio", "asyncio", "rich", "keyring", "yaml", "loomstream.model")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["ask", "--help"],
        ["chat", "--help"],
        ["decode", "--help"],
        ["providers", "--help"],
        ["config", "set-key", "--help"],
        ["completion", "bash"],
        ["models", "sonnet"],
    ],
    ids=" ".join,
)
def test_what_is_quick_imports_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_by(*arguments) == "[]"


def test_a_list_of_providers_imports_what_looks_for_keys_and_nothing_else_heavy() -> None:
    """Keys are looked for in the keyring; of its parts, the one for macOS starts a compiler where it is loaded."""
    assert loaded_by("providers") == "['keyring']"
    if sys.platform != "darwin":
        assert loaded_by("providers", names=("keyring.backends.macOS.api",)) == "[]"


def test_a_setting_is_read_without_an_event_loop_or_a_parser_where_there_is_no_file() -> None:
    assert loaded_by("config", "get", "llm.provider", names=[name for name in HEAVY if name != "anyio"]) == "[]"


def loaded_by(*arguments: str, names: Sequence[str] = HEAVY) -> str:
    """Run a command without a configuration; give which of these modules were imported."""
    program = (
        "import sys\nfrom loomstream.cli import main\n"
        f"sys.argv = ['looms', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code in (0, 1)\n"
        f"print('loaded:', [name for name in {tuple(names)!r} if sys.modules.get(name)])\n"
    )
    env = {**os.environ, "LOOM_DATA_DIR": os.devnull, "PYTHON_KEYRING_BACKEND": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30, env=env
    )
    return done.stdout.splitlines()[-1].removeprefix("loaded: ")


def test_help_lists_commands_and_exit_codes() -> None:
    result = CliRunner().invoke(looms, ["--help"])
    assert result.exit_code == 0
    for word in ("ask", "decode", "providers", "130  interrupted", "  4  the key was refused"):
        assert word in result.output


def test_no_text_names_a_command_that_does_not_exist() -> None:
    """Neither an error, nor a help text, nor a docstring; nor the pages about the command line."""
    package = Path(loomstream.__file__).parent
    texts = [path.read_text("utf-8") for path in (*package.rglob("*.py"), *(package.parent / "docs").glob("*.md"))]
    named = {name for text in texts for name in re.findall(r"(?:`|\s\s|\| )looms ([a-z][a-z-]*)", text)}
    assert {"ask", "providers"} <= named <= set(looms.list_commands(click.Context(looms)))


def test_the_version_is_the_package_s() -> None:
    result = CliRunner().invoke(looms, ["--version"])
    assert (result.exit_code, result.output) == (0, f"loomstream {metadata.version('loomstream')}\n")


@pytest.mark.parametrize(
    ("typed", "meant"), [("caht", "chat"), ("provider", "providers"), ("zzz", "there are ask, bench, chat")]
)
def test_an_unknown_command_is_told_what_there_is(typed: str, meant: str) -> None:
    result = CliRunner().invoke(looms, [typed])
    assert result.exit_code == 2
    assert meant in result.stderr


@pytest.mark.parametrize("command", ["ask", "chat"])
def test_the_help_of_a_command_teaches_by_examples(command: str) -> None:
    text = CliRunner().invoke(looms, [command, "--help"]).output
    assert text.count(f"looms {command} ") > 3
    assert "Examples:" in text


@pytest.mark.parametrize("arguments", [["aks"], ["--nonsense"], ["decode"]])
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(looms, arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_it_runs_as_a_module_and_by_both_names() -> None:
    done = subprocess.run([sys.executable, "-m", "loomstream", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("loomstream ")
    scripts = {entry.name: entry.value for entry in metadata.entry_points(group="console_scripts")}
    assert scripts["looms"] == scripts["loomstream"] == "loomstream.cli:main"
