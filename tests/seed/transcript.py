"""Types every step of the seed in a fresh home and writes what happened: docs/reference/seed-compatibility.md.

python tests/seed/transcript.py            says which steps did not do what the seed says, or that the page is old
python tests/seed/transcript.py --write    writes the page instead
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from seed_hosts import Hosts
from seed_steps import CANARY, NOT_TYPED, SECTIONS, Step

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "seed-compatibility.md"
_MOST_LINES = 14
_TIMES = (
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"),
    (re.compile(r"\b\d+(?:\.\d+)? m?s\b"), "… s"),
    (re.compile(r"\b\d+(?:\.\d+)? tokens/s"), "… tokens/s"),
    (re.compile(r"/tmp/[\w./-]+"), "FOLDER"),  # noqa: S108 (what `mktemp` gives)
    (re.compile(r"^Warning: .*deprecated.*\n", re.MULTILINE), ""),  # its words depend on the day
    (re.compile(r"^ok( +)(versions|extras)( +).*$", re.MULTILINE), r"ok\1\2\3…"),
    (re.compile(r"[ \t]+$", re.MULTILINE), ""),
)


class Done(NamedTuple):
    """A step that was typed: what came of it, and what is wrong about that."""

    step: Step
    output: str
    code: int
    faults: tuple[str, ...]


class Home:
    """A fresh home with `looms` on its path, and nothing else of whoever runs this."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        programs = folder / "bin"
        programs.mkdir()
        command = programs / "looms"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m loomstream "$@"\n')
        command.chmod(0o755)
        (folder / ".loom").mkdir()
        self._environ = {
            "HOME": str(folder),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
            "PYTHON_KEYRING_BACKEND": "seed_keyring.FileKeyring",
            "AWS_EC2_METADATA_DISABLED": "true",
            "COLUMNS": "120",
            "LANG": "C.UTF-8",
            "NO_PROXY": "*",
        }

    def configure(self, yaml: str | None) -> None:
        """Write `~/.loom/looms.yaml`; an empty text takes it away."""
        file = self._folder / ".loom" / "looms.yaml"
        if yaml is None:
            return
        file.unlink(missing_ok=True)
        if yaml:
            file.write_text(yaml.replace("{url}", self._url))
            file.chmod(0o600)

    def type(self, step: Step) -> tuple[int, str]:
        """Type the line; give its exit code and what it printed."""
        environ = self._environ | {name: value.replace("{url}", self._url) for name, value in step.environ.items()}
        done = subprocess.run(
            ["/bin/bash", "-o", "pipefail", "-c", step.typed.replace("{url}", self._url)],
            input=step.stdin.encode(),
            env=environ,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout.decode("utf-8", "replace").replace(str(self._folder), "~")


def run(hosts: Hosts, home: Home, step: Step) -> Done:
    """Type a step, and compare what came of it with what the seed says."""
    home.configure(step.yaml)
    hosts.trouble, hosts.requests[:] = step.trouble, []
    code, output = home.type(step)
    faults = [] if code == step.exit_code else [f"exit code {code}, not {step.exit_code}"]
    faults += [f"no {text!r} in the output" for text in step.shows if text not in output]
    if CANARY in output:
        faults.append("a key is shown")
    headers = hosts.requests[-1][1] if hosts.requests else {}
    faults += [f"{name} was not sent" for name, value in step.sent.items() if headers.get(name) != value]
    return Done(step, output, code, tuple(faults))


def run_all() -> dict[str, list[Done]]:
    """Type every step of every section, in order, in one fresh home."""
    with tempfile.TemporaryDirectory(prefix="home-") as folder, Hosts().running() as hosts:
        home = Home(Path(folder), hosts.url)
        return {title: [run(hosts, home, step) for step in steps] for title, steps in SECTIONS.items()}


def _plain(text: str) -> str:
    for pattern, instead in _TIMES:
        text = pattern.sub(instead, text)
    return text.strip("\n")


def _shown(done: Done) -> list[str]:
    lines = _plain(done.output).splitlines()
    more = [f"… {len(lines) - _MOST_LINES} more lines"] if len(lines) > _MOST_LINES else []
    body = [f"$ {_plain(done.step.typed.replace('{url}', 'http://127.0.0.1:PORT'))}", *lines[:_MOST_LINES], *more]
    return ["```text", *body, "```", ""]


def _step(done: Done) -> list[str]:
    step = done.step
    lines = [f"### {step.where}", ""]
    if step.yaml:
        lines += ["```yaml", *step.yaml.replace("{url}", "http://127.0.0.1:PORT").rstrip().splitlines(), "```", ""]
    if step.environ:
        lines += ["With " + ", ".join(f"`{name}`" for name in sorted(step.environ)) + " set.", ""]
    lines += _shown(done)
    ends = "" if done.code == 0 else f" (exit code {done.code})"
    verdict = f"**Departs**{ends}: {step.departs}" if step.departs else f"As the seed says{ends}."
    return [*lines, verdict, ""]


def page(results: dict[str, list[Done]]) -> str:
    """Give the page."""
    steps = [done for section in results.values() for done in section]
    departures = sum(bool(done.step.departs) for done in steps)
    lines = [
        "# Compatibility with the seed",
        "",
        "The seed is the provider layer of Loom as its page *LLM Provider Support* (v1.0.0) describes it. Each",
        "command, flag, variable, YAML block and troubleshooting step of that page was typed for this transcript, in a",
        "fresh home, against a loopback server that speaks each provider's wire, with a stand-in for the keyring. It",
        "is written by `python tests/seed/transcript.py --write`; continuous integration types all of it again and",
        "compares.",
        "",
        f"{len(steps)} steps; {departures} depart from the seed's words, each with its reason.",
        "",
    ]
    for title, section in results.items():
        lines += [f"## {title}", ""]
        for done in section:
            lines += _step(done)
    lines += ["## Not typed", "", "| what | why |", "|---|---|"]
    lines += [f"| {what} | {why} |" for what, why in NOT_TYPED]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Run, report, and write the page where asked."""
    say = partial(print, file=sys.stderr)
    results = run_all()
    faults = 0
    for section in results.values():
        for done in section:
            for fault in done.faults:
                faults += 1
                say(f"{done.step.where}: `{done.step.typed}`: {fault}\n{done.output}")
    if not faults and "--write" in arguments:
        PAGE.write_text(page(results), encoding="utf-8")
    elif not faults and PAGE.read_text(encoding="utf-8") != page(results):
        faults += 1
        say(f"{PAGE.name} is not what came of it: python tests/seed/transcript.py --write")
    say(f"{sum(map(len, results.values()))} steps, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
