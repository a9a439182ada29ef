"""The command line: `looms`, also installed as `loomstream`.

Contract: one file a command, no business logic; a command is imported when it is called, so that `--help` and
`--version` import no HTTP client, no event loop and no terminal library. Standard output carries the answer and nothing
else; notes, statistics and errors go to standard error. The exit codes are in `exit_codes`.
"""

from __future__ import annotations

import sys

from loomstream.cli.interrupt import INTERRUPTED, EndsAtOnce


def main() -> None:
    """Run the command that `sys.argv` names; always ends in `SystemExit`."""
    try:
        with EndsAtOnce():
            from loomstream.cli.group import looms  # noqa: PLC0415 (Ctrl-C counts from the first import on)

        looms()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
