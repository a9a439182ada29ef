"""Write the expected events of goldens: `python tests/streams/regold.py NAME…` (or `--missing`). Read the diff."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cases import load, run

from loomstream.events import encode


def main(names: list[str]) -> None:
    for case in load():
        wanted = case.name in names or case.path.stem in names
        if not wanted and not ("--missing" in names and not case.events_path.exists()) and "--all" not in names:
            continue
        outcome = run(case, [case.body])
        case.events_path.write_bytes(b"".join(encode(event) + b"\n" for event in outcome.events))
        note = "" if outcome.error == case.error else f"  <- meta says {case.error or 'no error'}"
        print(f"{case.name}: {len(outcome.events)} events {outcome.error} {outcome.message}{note}")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
