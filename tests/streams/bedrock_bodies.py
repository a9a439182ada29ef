"""Write the bodies of the Bedrock goldens from a form that can be read: `python tests/streams/bedrock_bodies.py`.

AWS event-stream messages are binary, so their text stands in the modules beside this. moto encodes them. Run
`regold.py` afterwards for the cases that changed, and read what it wrote.
"""

from __future__ import annotations

import json
from pathlib import Path

from bedrock_converse_bodies import CONVERSE, WHOLE
from bedrock_invoke_bodies import INVOKE, INVOKE_WHOLE
from bedrock_wire import JSON

HERE = Path(__file__).parent
EVENT_STREAM = "application/vnd.amazon.eventstream"


def write(dialect: str, name: str, body: bytes, error_name: str, content_type: str) -> None:
    folder = HERE / dialect
    folder.mkdir(exist_ok=True)
    lines = ['provider = "bedrock"', f'dialect = "{dialect}"', f'content_type = "{content_type}"']
    lines += [f'error = "{error_name}"'] if error_name else []
    (folder / f"{name}.bin").write_bytes(body)
    (folder / f"{name}.meta.toml").write_text("\n".join(lines) + "\n", "utf-8")


def main() -> None:
    for dialect, streams in (("bedrock_converse", CONVERSE), ("bedrock_invoke", INVOKE)):
        for name, case in streams.items():
            body, error_name = case if isinstance(case, tuple) else (case, "")
            write(dialect, name, body, error_name, EVENT_STREAM)
    for dialect, answers in (("bedrock_converse", WHOLE), ("bedrock_invoke", INVOKE_WHOLE)):
        for name, (value, error_name) in answers.items():
            write(dialect, name, json.dumps(value).encode(), error_name, JSON)


if __name__ == "__main__":
    main()
