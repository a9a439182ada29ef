"""Both event loops for every async test; loud skips, and with LOOMSTREAM_NO_SKIPS=1 no skips at all."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import hypothesis  # noqa: F401 (it looks for random sources by the collector, which sees none once all is frozen)
import keyring
import pytest
from keyring.backends import null

from loomstream.providers.table import TABLE

sys.path.insert(0, str(Path(__file__).parent))  # modules stand beside the tests, which are no package

pytest_plugins = ("live_budget",)  # its options must be known before tests are collected

NO_SKIPS = "LOOMSTREAM_NO_SKIPS"
"""Set to 1 where everything is installed: then a skipped test fails the session."""

_skipped: dict[str, str] = {}

# Under nohup, or behind an `&` of a script, SIGINT is ignored, and every process that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


def _credentials() -> frozenset[str]:
    """Every variable that holds a key, names an identity, or has a say in which provider is asked and where."""
    settings = (name for row in TABLE for setting in row.settings for name in setting.environment)
    rows = ((row.key_environment, row.base_url_environment, row.model_environment) for row in TABLE)
    identities = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE",
                  "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE",
                  "IDENTITY_ENDPOINT", "MSI_ENDPOINT")  # fmt: skip
    named = (name for row in rows for names in row for name in names)
    return frozenset({"LOOM_LLM_PROVIDER", "LOOM_CONFIG", *identities, *settings, *named})


CREDENTIALS = _credentials()
FILES = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AZURE_CONFIG_DIR", "CLOUDSDK_CONFIG")
"""The variables that say where the vendors' own tools keep what they know."""


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine without any key: no variable of any provider, an empty keyring."""
    for name in CREDENTIALS & os.environ.keys():
        monkeypatch.delenv(name)
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path))  # nor a configuration
    for name in FILES:
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    before = keyring.get_keyring()
    keyring.set_keyring(null.Keyring())
    yield
    keyring.set_keyring(before)


SkipLoudly = Callable[[str, str], NoReturn]


@pytest.fixture(scope="session")
def skip_loudly() -> SkipLoudly:
    """Give the way to skip a test: what is missing, and what installs it; both stand in the summary."""

    def skip(missing: str, remedy: str) -> NoReturn:
        pytest.skip(f"NOT TESTED: {missing} is missing; to test it: {remedy}")

    return skip


# --- no skips ------------------------------------------------------------------------------------


def _no_skips() -> bool:
    return os.environ.get(NO_SKIPS, "") == "1"


def _note(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        _skipped[report.nodeid] = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note(report)


_LONG = (
    *("cli/test_processes", "peers/test_live_suite", "local/", "streams/", "peers/", "ui/", "faults/", "benchmarks/"),
    *("auth/", "sdks/", "corpus/", "telemetry/", "cli/"),
)
"""Where tests take longest, most of it waiting for other processes."""


def _place(item: pytest.Item) -> int:
    path = item.path.relative_to(Path(__file__).parent).as_posix()
    return next((place for place, beginning in enumerate(_LONG) if path.startswith(beginning)), len(_LONG))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker is left alone with it at the end."""
    items.sort(key=_place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Begin one worker more than there are processors: many tests wait for other processes."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Leave the tests themselves, some hundred thousand objects that stay, out of every later collection."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _no_skips() and _skipped and exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not (_no_skips() and _skipped):
        return
    terminalreporter.section(f"{NO_SKIPS}=1 and {len(_skipped)} skipped", red=True, bold=True)
    by_reason: dict[str, list[str]] = {}
    for nodeid, reason in _skipped.items():
        by_reason.setdefault(reason.removeprefix("Skipped: "), []).append(nodeid)
    for reason, nodeids in by_reason.items():
        others = f" and {len(nodeids) - 1} more" if len(nodeids) > 1 else ""
        terminalreporter.write_line(f"{nodeids[0]}{others}: {reason}")
