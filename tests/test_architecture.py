"""Rules of the code base that no linter knows."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import loomstream
from loomstream.providers.table import TABLE

PACKAGE = Path(loomstream.__file__).parent
ROOT = Path(__file__).parents[1]
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(loomstream.__path__, "loomstream.")
    if not name.endswith("__main__") and name != "loomstream.testing.pytest_plugin"
]


def conditions(tree: ast.AST) -> list[ast.expr]:
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
            found.append(node.test)
        elif isinstance(node, ast.match_case):
            found += [pattern.value for pattern in ast.walk(node.pattern) if isinstance(pattern, ast.MatchValue)]
        elif isinstance(node, ast.Compare):
            found.append(node)
    return found


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """Every module of the package by its place in it."""
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8")) for path in SOURCES}


def texts_in(node: ast.AST) -> set[object]:
    return {inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant)}


def test_no_provider_is_named_in_a_condition(trees: dict[str, ast.Module]) -> None:
    """What differs between hosts is a quirk."""
    names = {row.name for row in TABLE} - {"local"}
    named = {
        f"{place}:{condition.lineno}": texts_in(condition) & names
        for place, tree in trees.items()
        for condition in conditions(tree)
    }
    assert {line: found for line, found in named.items() if found} == {}


NAMES = {name for row in TABLE for name in (row.name, *row.aliases)}
TABLE_FILE = "providers/table.py"
NAMED_ELSEWHERE: dict[str, tuple[set[str], str]] = {
    "auth/aws.py": ({"bedrock"}, "the extra that brings the library, and AWS's word for the service that is signed"),
    "auth/aws_chain.py": ({"bedrock"}, "the extra that brings the library"),
    "auth/google.py": ({"vertex"}, "the extra that brings the library"),
    "bench/measure.py": ({"local"}, "the spec of the embedded model"),
    "catalog/generate.py": ({"litellm"}, "the package whose map of models is read"),
    "cli/bench.py": ({"local"}, "the spec of the embedded model, where none is given"),
    "cli/choice.py": ({"openai-compatible", "local"}, "what --base-url alone, and a .gguf file, mean by themselves"),
    "cli/key_options.py": (
        {"anthropic", "openai", "mistral", "gemini", "huggingface"},
        "five key options with fixed names are promised, each where the table has its provider",
    ),
    "cli/providers.py": ({"bedrock", "vertex"}, "extras, by the scheme that needs them"),
    "configured/choice.py": ({"local"}, "what answers where nothing is configured"),
    "dialects/openai_responses/server_tools.py": ({"local"}, "a word of the wire"),
    "doctor/machine.py": ({"bedrock", "vertex", "local"}, "extras, by the scheme that needs them"),
    "doctor/probe.py": ({"gemini"}, "a dialect of the same name"),
    "local/process.py": ({"local"}, "its own name, in its errors"),
    "testing/pace.py": (
        {"anthropic", "bedrock", "ollama", "openai", "azure-openai", "mistral", "gemini", "huggingface"},
        "made-up paces of simulated providers, as data",
    ),
    "testing/credentials.py": ({"gemini"}, "a dialect of the same name"),
    "testing/wires/__init__.py": ({"mistral"}, "whose way of writing the simulator imitates, as data"),
    "testing/wires/gemini.py": ({"gemini"}, "a dialect of the same name"),
    "providers/__init__.py": ({"gemini"}, "a dialect of the same name"),
    "providers/called.py": (
        {"alibaba", "anthropic", "bedrock", "gemini", "huggingface", "moonshot", "openai", "xai"},
        "whom a wrong name may mean, as data",
    ),
    "providers/custom.py": ({"gemini"}, "a dialect of the same name"),
}
"""Where else a text is equal to a provider's name, and why that is no knowledge of a provider."""


def test_no_provider_is_named_outside_the_table(trees: dict[str, ast.Module]) -> None:
    """What differs between hosts belongs into the table, as a quirk or a field."""
    named = {place: texts_in(tree) & NAMES for place, tree in trees.items() if place != TABLE_FILE}
    allowed = {place: names & NAMES for place, (names, _) in NAMED_ELSEWHERE.items()}
    assert {place: names for place, names in named.items() if names} == {
        place: names for place, names in allowed.items() if names
    }


def test_files_are_short() -> None:
    files = [
        path for folder in ("loomstream", "tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(files) > len(SOURCES)
    assert [path for path in files if len(path.read_text("utf-8").splitlines()) > 600] == []


def test_the_layers_of_the_docs_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    page = " ".join((ROOT / "docs" / "CONTRIBUTING.md").read_text("utf-8").split())
    assert " → ".join(layers) in page


def test_every_module_says_what_it_does(trees: dict[str, ast.Module]) -> None:
    assert [place for place, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_public_names_are_what_they_say_after_every_import() -> None:
    for name in MODULES:
        importlib.import_module(name)
    for name in loomstream.__all__:
        assert getattr(getattr(loomstream, name), "__name__", name) == name
    assert callable(loomstream.decode)
    assert len(loomstream.__all__) <= 40
    assert sorted(set(loomstream.__all__)) == sorted(loomstream.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        loomstream.no_such_name  # noqa: B018 (the look-up is the point)


def test_importing_loads_no_http_client_and_no_event_loop() -> None:
    code = "import sys, json, loomstream; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"httpx", "httpx2", "aiohttp", "asyncio", "anyio", "trio", "click", "rich", "keyring", "yaml", "ssl"}
    assert not heavy & set(json.loads(out))
