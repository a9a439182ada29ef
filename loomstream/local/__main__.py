"""The child: serves one model on a free loopback port until its standard input closes.

Contract: reads one line of `Settings` from standard input, writes one `Report` line on standard output, and ends by
`os._exit` as soon as standard input closes or the parent is gone: native threads are generating then, and an orderly
interpreter shutdown under them crashes. It keeps nothing and knows nothing of who asks.
`python -m loomstream.local --fetch` fetches the bundled model instead, with a progress line.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from loomstream.local.protocol import Failed, Ready, Report, Settings

_USAGE = """\
python -m loomstream.local --fetch    fetch the bundled model into the user cache, print its path
python -m loomstream.local            serve a model; loomstream itself starts this, with settings on standard input
"""

_PARENT_CHECK_S = 1.0
"""How often the child looks whether its parent still lives; a closed standard input is noticed at once."""

_MAX_ANSWER_TOKENS = 1024
"""The bundled model's limit for a request that states none: a model this small may never stop by itself."""


def _parameters(runtime: Any, settings: Settings) -> Any:  # noqa: ANN401 (the runtime ships no types)
    parameters = runtime.CommonParams()
    parameters.model.path = settings.model_path
    parameters.model_alias = {settings.model_name}
    parameters.api_keys = [settings.api_key]
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.ui = False
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = settings.threads
    parameters.n_parallel = settings.parallel
    # Each request has its own share: with one shared pool, a long answer makes all the others fail (tried).
    parameters.n_ctx = settings.context_tokens * settings.parallel
    parameters.cache_ram_mib = 0  # 8 GiB of old prompts otherwise
    parameters.warmup = False  # 0.1 s at every start, and the first answer is no slower without it
    parameters.verbosity = 1  # errors only: they explain a start that fails
    if settings.bundled:
        _prepare_bundled(parameters)
    return parameters


def _prepare_bundled(parameters: Any) -> None:  # noqa: ANN401 (the runtime ships no types)
    """Set what suits SmolLM2-135M for requests that do not say otherwise.

    Temperature 0.2 and top-p 0.9 are its authors' advice (the model card); without a repetition penalty half of the
    prompts that were tried ended in a loop, with it none of the demo's.
    """
    parameters.fit_params = False  # it fits everywhere, and fitting loads it twice
    parameters.n_predict = _MAX_ANSWER_TOKENS
    parameters.sampling.temp = 0.2
    parameters.sampling.top_p = 0.9
    parameters.sampling.penalty_repeat = 1.1


def _start(settings: Settings) -> tuple[Report, object]:
    """Start the server; the second value keeps it alive."""
    try:
        runtime: Any = importlib.import_module("xllamacpp")
    except ImportError as error:
        return Failed("import", str(error)), None
    try:
        server = runtime.Server(_parameters(runtime, settings))
        port = int(server.listening_address.rpartition(":")[2])
    except Exception as error:  # noqa: BLE001 (native code: whatever it raises goes to the parent as text)
        return Failed("model", str(error)), None
    return Ready(port), server


def _take_standard_output() -> int:
    """Keep standard output for the report alone: whatever the runtime prints there goes to standard error."""
    report_to = os.dup(1)
    os.dup2(2, 1)
    return report_to


def _silence() -> None:
    """Stop writing to the parent's file for startup errors, which nobody bounds."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _parent_is_gone(parent: int) -> bool:
    """Another process forked off the parent may hold the pipe open after the parent's death (POSIX only)."""
    return hasattr(os, "getppid") and os.getppid() != parent


def _await_goodbye(parent: int) -> None:
    if sys.platform == "win32":  # no select on pipes there, and no fork that could keep the pipe open
        while os.read(0, 4096):
            pass
        return
    while not _parent_is_gone(parent):
        readable, _, _ = select.select([0], [], [], _PARENT_CHECK_S)
        if readable and not os.read(0, 4096):
            return


def _read_settings() -> Settings:
    # Byte by byte: a buffer that reads ahead would hide the closing of standard input from `_await_goodbye`.
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return msgspec.json.decode(line, type=Settings)


def _serve(settings: Settings, parent: int) -> None:
    report_to = _take_standard_output()
    report, server = _start(settings)
    with contextlib.suppress(BrokenPipeError):  # the parent went away meanwhile: nobody is left to tell
        os.write(report_to, msgspec.json.encode(report) + b"\n")
    os.close(report_to)
    if server is None:
        return  # an orderly end, in which the runtime's log thread still writes what it knows of the failure
    _silence()
    _await_goodbye(parent)
    os._exit(0)


def _progress_line() -> Callable[[int, int | None], None]:
    """Give a callback that draws one line on a terminal, and nothing elsewhere."""

    def draw(done: int, total: int | None) -> None:
        of_total = f" of {total / 1e6:.1f}" if total else ""
        sys.stderr.write(f"\rfetching the model: {done / 1e6:.1f}{of_total} MB ")
        sys.stderr.flush()

    def be_quiet(done: int, total: int | None) -> None:  # noqa: ARG001 (the callback's signature)
        return

    return draw if sys.stderr.isatty() else be_quiet


def _fetch() -> int:
    """Fetch the bundled model. Exit codes: 0 done, 1 failed (the reason is on standard error), 130 interrupted."""
    import anyio  # noqa: PLC0415 (the serving child must start fast)

    from loomstream.errors import LoomstreamError  # noqa: PLC0415 (as above)
    from loomstream.local.fetch import fetch_model  # noqa: PLC0415 (as above)

    try:
        path = anyio.run(fetch_model, _progress_line())
    except LoomstreamError as error:
        sys.stderr.write(f"\n{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    sys.stderr.write("\n" if sys.stderr.isatty() else "")
    sys.stdout.write(f"{path}\n")
    return 0


def main(arguments: list[str]) -> int:
    """Serve, or with `--fetch` fetch the model; anything else prints the usage and gives 2."""
    if arguments == ["--fetch"]:
        return _fetch()
    parent = os.getppid()
    try:
        settings = None if arguments or sys.stdin.isatty() else _read_settings()
    except msgspec.DecodeError:
        settings = None
    if settings is None:
        sys.stderr.write(_USAGE)
        return 2
    _serve(settings, parent)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
