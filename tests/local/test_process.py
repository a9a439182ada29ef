"""The embedded model's process: a real model answers, and nothing is left behind whatever happens."""

import asyncio
import contextlib
import gc
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import httpx
import pytest

from loomstream.errors import ConfigError, ConnectFailed, UsageError
from loomstream.local import DEMO_PROMPT, LocalServer, launch, process
from loomstream.model import connect

# The first use may fetch the model.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

needs_pidfd = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="NOT TESTED: waiting for another process's child needs Linux"
)

PARENT = """
import contextlib, os, signal, sys
import anyio, httpx
from loomstream.local import launch

def say(*words):
    print(*words, flush=True)

def alive(server):
    return httpx.get(server.base_url + "/models", headers=headers(server), trust_env=False).status_code == 200

def headers(server):
    return {"authorization": "Bearer " + server.api_key.reveal()}

@contextlib.asynccontextmanager
async def streaming(server):
    body = {"messages": [{"role": "user", "content": "Count."}], "stream": True, "ignore_eos": True}
    async with httpx.AsyncClient(trust_env=False) as client:
        async with client.stream(
            "POST", server.base_url + "/chat/completions", json=body, headers=headers(server)
        ) as response:
            chunks = response.aiter_bytes()
            await anext(chunks)
            yield chunks

"""


@asynccontextmanager
async def running(model_path: Path) -> AsyncIterator[LocalServer]:
    server = await launch(model_path=model_path)
    try:
        yield server
    finally:
        await server.aclose()


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def headers(server: LocalServer) -> dict[str, str]:
    return {"authorization": f"Bearer {server.api_key.reveal()}"}


def wait_until_ended(pid: int) -> None:
    """Wait for the end of a process, which may be no child of ours; the test's own time limit is the limit."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            select.select([descriptor], [], [])
        finally:
            os.close(descriptor)


@contextmanager
def parent(script: str, backend: str, model_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a script that launches a server, in a session of its own, as a shell would."""
    source = PARENT + script + f"\nanyio.run(main, {str(model_path)!r}, backend={backend!r})\n"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", source], start_new_session=True, **pipes) as started:
        try:
            yield started
        finally:
            started.kill()


# --- serving -------------------------------------------------------------------------------------


async def test_the_model_streams_an_answer(model_path: Path) -> None:
    body = {"messages": [{"role": "user", "content": DEMO_PROMPT}], "stream": True, "max_tokens": 12}
    async with running(model_path) as server, httpx.AsyncClient(trust_env=False) as client:
        url = f"{server.base_url}/chat/completions"
        async with client.stream("POST", url, json=body, headers=headers(server)) as response:
            lines = [line async for line in response.aiter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    assert len(text.split()) > 3
    assert {event["model"] for event in events} == {"smollm2-135m-instruct"} == {server.model}


async def test_only_the_key_opens_it_and_only_loopback_reaches_it(model_path: Path) -> None:
    async with running(model_path) as server, httpx.AsyncClient(trust_env=False) as client:
        url = f"{server.base_url}/models"
        assert (await client.get(url, headers=headers(server))).status_code == 200
        assert (await client.get(url, headers={"authorization": "Bearer wrong"})).status_code == 401
        assert (await client.get(url)).status_code == 401
        root = server.base_url.removesuffix("/v1")
        assert (await client.get(root, headers=headers(server))).status_code == 404, "no web page"
        if sys.platform == "linux":
            with pytest.raises(httpx.ConnectError):  # a server on all interfaces would answer here
                await client.get(url.replace("127.0.0.1", "127.0.0.2"))


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="NOT TESTED: there is no /proc here")
async def test_the_key_is_in_no_argument_and_no_variable(model_path: Path) -> None:
    async with running(model_path) as server:
        key = server.api_key.reveal().encode()
        seen = [await (anyio.Path("/proc") / str(server.pid) / name).read_bytes() for name in ("cmdline", "environ")]
        assert b"loomstream.local" in seen[0]
        assert not any(key in text for text in seen)
        assert server.api_key.reveal() not in repr(server)


@pytest.mark.parametrize(("file_name", "penalty"), [("SmolLM2-135M-Instruct.Q4_1.gguf", 1.1), ("own.gguf", 1.0)])
async def test_only_the_bundled_model_gets_its_sampling_defaults(
    file_name: str, penalty: float, model_path: Path, tmp_path: Path
) -> None:
    (tmp_path / file_name).symlink_to(model_path)
    async with running(tmp_path / file_name) as server, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(server.base_url.removesuffix("/v1") + "/props", headers=headers(server))
    settings = answer.json()["default_generation_settings"]
    assert settings["params"]["repeat_penalty"] == pytest.approx(penalty)
    assert settings["n_ctx"] == 4096, "each request has all of it"


# --- closing -------------------------------------------------------------------------------------


async def test_closing_leaves_no_process_and_twice_is_fine(model_path: Path) -> None:
    server = await launch(model_path=model_path)
    assert exists(server.pid)
    await server.aclose()
    assert not exists(server.pid)
    await server.aclose()
    server.close_now()


@needs_pidfd
async def test_a_server_says_whether_it_is_alive(model_path: Path) -> None:
    async with running(model_path) as server:
        assert server.alive
        os.kill(server.pid, signal.SIGKILL)
        await anyio.to_thread.run_sync(wait_until_ended, server.pid)
        assert not server.alive


@needs_pidfd
async def test_a_model_outlives_the_death_of_its_server(model_path: Path) -> None:
    async with connect("local", model_path=model_path, max_tokens=3) as model:
        assert (await model.complete("Hi")).text
        server = model._endpoint._server
        assert isinstance(server, LocalServer)
        os.kill(server.pid, signal.SIGKILL)
        await anyio.to_thread.run_sync(wait_until_ended, server.pid)
        assert (await model.complete("Hi")).text


async def test_closing_under_an_open_stream_does_not_hang(model_path: Path) -> None:
    body = {"messages": [{"role": "user", "content": "Count."}], "stream": True, "ignore_eos": True}
    async with running(model_path) as server, httpx.AsyncClient(trust_env=False) as client:
        url = f"{server.base_url}/chat/completions"
        async with client.stream("POST", url, json=body, headers=headers(server)) as response:
            chunks = response.aiter_bytes()
            await anext(chunks)
            await server.aclose()
            assert not exists(server.pid)
            with pytest.raises(httpx.TransportError):
                _ = [chunk async for chunk in chunks]


async def test_closing_is_shielded_from_cancellation(model_path: Path) -> None:
    server = await launch(model_path=model_path)
    shielded = False
    with anyio.CancelScope() as scope:
        scope.cancel()
        await server.aclose()
        assert not exists(server.pid)
        shielded = True
    assert shielded, "the cancellation waits until the closing is done"


async def test_a_forgotten_server_is_killed(model_path: Path) -> None:
    server = await launch(model_path=model_path)
    pid = server.pid
    del server
    gc.collect()
    assert not exists(pid)


async def test_close_now_needs_no_event_loop(model_path: Path) -> None:
    server = await launch(model_path=model_path)
    await anyio.to_thread.run_sync(server.close_now)
    assert not exists(server.pid)


STUBBORN = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.stdin.readline()
print('{"type":"ready","port":9}', flush=True)
if sys.stdin.read() == '' and 'ANNOUNCE' in os.environ:
    open(os.environ['ANNOUNCE'], 'w').close()
while True:
    signal.pause()
"""


async def test_a_child_that_does_not_leave_is_killed(
    interpreter: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter(STUBBORN)
    monkeypatch.setattr(process, "CLOSE_LIMIT_S", 0.05)
    server = await launch(model_path=gguf(tmp_path))
    assert server.base_url == "http://127.0.0.1:9/v1"
    await server.aclose()
    assert not exists(server.pid)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancelling_a_task_of_asyncio_amid_closing_kills_at_once(
    interpreter: Callable[[str], None], announcements: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter(STUBBORN)
    server = await launch(model_path=gguf(tmp_path))
    monkeypatch.setattr(process, "CLOSE_LIMIT_S", 200)
    task = asyncio.create_task(server.aclose())
    await anyio.to_thread.run_sync(announcements.read_text)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not exists(server.pid)


# --- the parent's end ----------------------------------------------------------------------------


@needs_pidfd
def test_killing_the_parent_ends_the_server(model_path: Path, anyio_backend: str) -> None:
    script = """
async def main(path):
    server = await launch(model_path=path)
    async with streaming(server):
        say(server.pid)
        await anyio.sleep_forever()
"""
    with parent(script, anyio_backend, model_path) as started:
        assert started.stdout is not None
        pid = int(started.stdout.readline())
        assert exists(pid)
        started.send_signal(signal.SIGKILL)
        wait_until_ended(pid)


@needs_pidfd
@pytest.mark.parametrize("leaving", ["return", "raise SystemExit(0)", "os._exit(0)"])
def test_leaving_the_parent_amid_a_stream_ends_the_server(leaving: str, model_path: Path, anyio_backend: str) -> None:
    script = f"""
async def main(path):
    global server
    server = await launch(model_path=path)
    async with streaming(server):
        say(server.pid)
        {leaving}
"""
    with parent(script, anyio_backend, model_path) as started:
        assert started.stdout is not None
        pid = int(started.stdout.readline())
        assert started.wait() == 0
        wait_until_ended(pid)


@pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: process groups are different on Windows")
def test_an_interrupt_reaches_the_parent_alone(model_path: Path, anyio_backend: str) -> None:
    script = """
async def main(path):
    server = await launch(model_path=path)
    try:
        say(server.pid)
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            say("alive" if alive(server) else "dead")
            await server.aclose()
"""
    with parent(script, anyio_backend, model_path) as started:
        assert started.stdout is not None
        pid = int(started.stdout.readline())
        os.killpg(started.pid, signal.SIGINT)
        assert started.stdout.readline() == "alive\n"
        assert started.wait() != 0
        assert not exists(pid)


@needs_pidfd
def test_a_fork_of_the_parent_neither_ends_the_server_nor_keeps_it(model_path: Path, anyio_backend: str) -> None:
    """A worker forked off the parent holds the child's pipe too, and runs the parent's exit hooks."""
    script = """
async def main(path):
    global server
    server = await launch(model_path=path)
    if os.fork() == 0:
        server.close_now()
        os._exit(0)
    os.wait()
    say("alive" if alive(server) else "dead")
    keeper = os.fork()
    if keeper == 0:
        signal.pause()
    say(server.pid, keeper)
    os._exit(0)
"""
    with parent(script, anyio_backend, model_path) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "alive\n"
        pid, keeper = map(int, started.stdout.readline().split())
        try:
            wait_until_ended(pid)
        finally:
            os.kill(keeper, signal.SIGKILL)


# --- starting ------------------------------------------------------------------------------------


def gguf(folder: Path, content: bytes = b"GGUF") -> Path:
    """Make a file that passes for a model until somebody reads it."""
    path = folder / "small.gguf"
    path.write_bytes(content)
    return path


def beginning(path: Path) -> bytes:
    return path.read_bytes()[:1_000_000]


WAITING = """
import os, signal
open(os.environ['ANNOUNCE'], 'w').write(str(os.getpid()))
while True:
    signal.pause()
"""


async def test_cancelling_a_start_leaves_no_process(
    interpreter: Callable[[str], None], announcements: Path, tmp_path: Path
) -> None:
    interpreter(WAITING)
    path = gguf(tmp_path)

    async def start() -> None:
        await launch(model_path=path)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        pid = int(await anyio.to_thread.run_sync(announcements.read_text))
        tasks.cancel_scope.cancel()
    assert not exists(pid)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancelling_a_task_of_asyncio_amid_a_start(
    interpreter: Callable[[str], None], announcements: Path, tmp_path: Path
) -> None:
    """Such a cancellation passes through every shield."""
    interpreter(WAITING)
    task = asyncio.create_task(launch(model_path=gguf(tmp_path)))
    pid = int(await anyio.to_thread.run_sync(announcements.read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not exists(pid)


async def test_a_child_that_is_late_is_killed(interpreter: Callable[[str], None], tmp_path: Path) -> None:
    interpreter("import signal\nwhile True: signal.pause()")
    with pytest.raises(ConnectFailed, match=r"not ready within 0\.05 s.*ready_limit_s"):
        await launch(model_path=gguf(tmp_path), ready_limit_s=0.05)


@pytest.mark.parametrize(
    ("body", "error", "complaint"),
    [
        (
            "import sys; sys.stderr.write('out of\\nmemory\\n'); sys.exit(3)",
            ConnectFailed,
            "code 3 before it was ready.*out of / memory",
        ),
        ("print('hello')", ConnectFailed, "exit code"),
        ("import os; os.kill(os.getpid(), 9)", ConnectFailed, "exit code -9 .*enough memory.*nothing"),
        (
            """print('{"type":"failed","what":"import","detail":"no libgomp"}')""",
            ConfigError,
            r"cannot be loaded: no libgomp.*pip install 'loomstream\[local\]'",
        ),
    ],
    ids=["dies", "babbles", "is killed", "cannot load its runtime"],
)
async def test_a_child_that_does_not_start_is_explained(
    body: str, error: type[Exception], complaint: str, interpreter: Callable[[str], None], tmp_path: Path
) -> None:
    interpreter(body)
    with pytest.raises(error, match=complaint):
        await launch(model_path=gguf(tmp_path))


async def test_an_interpreter_that_cannot_be_started(
    interpreter: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter("")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(ConnectFailed, match="No such file"):
        await launch(model_path=gguf(tmp_path))
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(ConfigError, match="not run by a Python interpreter"):
        await launch(model_path=gguf(tmp_path))


async def test_a_cut_model_file_is_explained_in_the_runtimes_words(model_path: Path, tmp_path: Path) -> None:
    cut = gguf(tmp_path, beginning(model_path))
    with pytest.raises(ConfigError, match=r"cannot be served: .*error loading model") as caught:
        await launch(model_path=cut)
    assert str(cut) in str(caught.value)
    assert "Give another GGUF file" in str(caught.value)


async def test_what_a_child_says_of_its_failure_while_it_ends_is_read(
    interpreter: Callable[[str], None], tmp_path: Path
) -> None:
    interpreter(
        'import sys; print(\'{"type":"failed","what":"model","detail":"no"}\', flush=True)\n'
        "sys.stdin.read(); sys.stderr.write('error loading model: it is cut')"
    )
    with pytest.raises(ConfigError, match="cannot be served: error loading model: it is cut"):
        await launch(model_path=gguf(tmp_path))


async def test_without_a_model_it_says_how_to_get_one(interpreter: Callable[[str], None], cache: Path) -> None:
    interpreter("")
    with pytest.raises(ConfigError, match=r"python -m loomstream\.local --fetch"):
        await launch()
    assert not await anyio.Path(cache).exists(), "nothing is fetched unasked"


async def test_a_missing_runtime_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="needs the extra `local`"):
        await launch(model_path=gguf(tmp_path))


@pytest.mark.parametrize("name", ["threads", "context_tokens", "parallel"])
async def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} must be at least 1, got 0"):
        await launch(**{name: 0})


# --- the machine ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "machine", "binary_interface", "named"),
    [
        ("linux", "x86_64", "cpython-311-x86_64-linux-gnu", ""),
        ("linux", "aarch64", "cpython-311-aarch64-linux-gnu", ""),
        ("win32", "AMD64", "", ""),
        ("darwin", "arm64", "cpython-311-darwin", ""),
        ("linux", "x86_64", "cpython-311-x86_64-linux-musl", "linux-x86_64 with musl"),
        ("win32", "ARM64", "", "win32-arm64"),
        ("linux", "riscv64", "cpython-311-riscv64-linux-gnu", "linux-riscv64"),
    ],
)
def test_platforms(system: str, machine: str, binary_interface: str, named: str) -> None:
    problem = process.platform_problem(system, machine, binary_interface)
    assert (named in problem) if named else (problem == "")


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: containers limit processors on Linux")
@pytest.mark.parametrize(
    ("quota", "threads"), [("max 100000", 3), ("150000 100000", 1), ("50000 100000", 1), ("300000 100000", 2), ("", 3)]
)
def test_threads_leave_a_processor_free(
    quota: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(process, "_CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    assert process.default_threads() == threads
