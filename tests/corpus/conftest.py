"""Finds the recorded wire corpus, which is not part of this project.

It is looked for at `LOOMSTREAM_WIRE_CORPUS`, then beside the project's root. Where neither is there every corpus test
is skipped, and the skip says so. Where the variable is set and wrong they fail: who sets it expects them to run.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the oracles stand beside the tests, which are no package

from apis import APIS  # noqa: E402 (found by the line above)

VARIABLE = "LOOMSTREAM_WIRE_CORPUS"
BESIDE_THE_PROJECT = HERE.parents[2] / "shared" / "wire-corpus"


def corpus() -> Path:
    """Give where the corpus is, or should be."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else BESIDE_THE_PROJECT


def missing() -> str:
    """Say why the corpus cannot be read; empty where it can."""
    if (corpus() / "index.jsonl").is_file():
        return ""
    return f"SKIPPED THE WIRE CORPUS: no recordings; set {VARIABLE} to the folder that holds their index.jsonl"


def load(row: dict[str, object]) -> dict[str, object]:
    """Give an exchange's index row with its `meta`, its `request` and its body."""
    folder = corpus() / str(row["id"])
    name = "response.bin" if row["streaming"] else "response.json"
    told = {name: json.loads((folder / f"{name}.json").read_bytes()) for name in ("meta", "request")}
    return {**row, **told, "body": (folder / name).read_bytes()}


NO_ANSWERS = {"bedrock/nonstream-013-invoke-embedding-bedrock-embedding-dialects-bedrock-amazon-nova"}
"""Exchanges of status 200 that no model answered in words: embeddings."""

KINDS = {
    "any_exchange": lambda row: True,  # noqa: ARG005 (the others read the row)
    "exchange": lambda row: row["status"] < 400 and row["id"] not in NO_ANSWERS,
    "stream": lambda row: row["status"] < 400 and row["streaming"],
    "refused_exchange": lambda row: row["status"] >= 400,
    "bedrock_exchange": lambda row: APIS[row["api"]].dialect.startswith("bedrock_"),
    "chat_exchange": lambda row: row["api"] == "chat.completions",
    "gemini_exchange": lambda row: "enerateContent" in row["api"],
    "cohere_exchange": lambda row: row["api"] == "chat.v2",
    "ollama_exchange": lambda row: row["api"] == "chat",
}
"""Fixture name to which rows of the index it takes."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name in KINDS.keys() & set(metafunc.fixturenames):
        if missing():
            metafunc.parametrize(name, [None], ids=["no-corpus"], indirect=True)
            continue
        index = (corpus() / "index.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [row for row in map(json.loads, index) if row["api"] in APIS and KINDS[name](row)]
        metafunc.parametrize(name, rows, ids=[row["id"] for row in rows], indirect=True)


def _loaded(request: pytest.FixtureRequest) -> dict[str, object]:
    if request.param is not None:
        return load(request.param)
    if os.environ.get(VARIABLE):
        pytest.fail(f"{VARIABLE} is set to {corpus()}, which holds no index.jsonl")
    pytest.skip(missing())


any_exchange = pytest.fixture(_loaded, name="any_exchange")
exchange = pytest.fixture(_loaded, name="exchange")
stream = pytest.fixture(_loaded, name="stream")
refused_exchange = pytest.fixture(_loaded, name="refused_exchange")
bedrock_exchange = pytest.fixture(_loaded, name="bedrock_exchange")
chat_exchange = pytest.fixture(_loaded, name="chat_exchange")
gemini_exchange = pytest.fixture(_loaded, name="gemini_exchange")
cohere_exchange = pytest.fixture(_loaded, name="cohere_exchange")
ollama_exchange = pytest.fixture(_loaded, name="ollama_exchange")
