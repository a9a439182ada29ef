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
sys.path.insert(0, str(HERE))  # `oracle` stands beside the tests, which are no package

VARIABLE = "LOOMSTREAM_WIRE_CORPUS"
BESIDE_THE_PROJECT = HERE.parents[2] / "shared" / "wire-corpus"
APIS = {"messages", "anthropic-rawPredict", "chat", "chat.completions"}
"""The wire protocols that loomstream speaks so far."""


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
    """Give an exchange's index row with its `meta`, its body and where it is."""
    folder = corpus() / str(row["id"])
    name = "response.bin" if row["streaming"] else "response.json"
    return {**row, "meta": json.loads((folder / "meta.json").read_bytes()), "body": (folder / name).read_bytes()}


KINDS = {
    "any_exchange": lambda row: True,  # noqa: ARG005 (the others read the row)
    "exchange": lambda row: row["status"] < 400,
    "stream": lambda row: row["status"] < 400 and row["streaming"],
    "refused_exchange": lambda row: row["status"] >= 400,
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
