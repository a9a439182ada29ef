"""The command line: `looms`, also installed as `loomstream`.

Contract: one file a command, no business logic; a command is imported when it is called, so that `--help` and
`--version` import no HTTP client, no event loop and no terminal library. Standard output carries the answer and nothing
else; notes, statistics and errors go to standard error. Warnings that libraries have for programmers appear where they
are asked for (`PYTHONWARNINGS`, `-W`). The exit codes are in `exit_codes`.
"""

from __future__ import annotations

import sys
import warnings

from loomstream.cli.interrupt import INTERRUPTED, EndsAtOnce


def main() -> None:
    """Run the command that `sys.argv` names; always ends in `SystemExit`."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    try:
        with EndsAtOnce():
            from loomstream.cli.group import looms  # noqa: PLC0415 (Ctrl-C counts from the first import on)

        looms()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
