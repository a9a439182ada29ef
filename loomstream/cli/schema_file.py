"""`--output-schema FILE`: a JSON Schema from a file, as what the answer must be.

Contract: the file is read at once; what is no JSON object in it is one `RequestError`. What a provider can do with the
schema is the dialect's to say.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from loomstream.errors import RequestError
from loomstream.messages import Output
from loomstream.wire.json import loads

_NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_MOST_NAME = 64
"""What providers take at most as the name of a schema."""


_MOST_BYTES = 4 * 1024 * 1024
"""What is larger is no schema that a provider takes; a device may never end."""


def read_schema(path: str) -> Output:
    """Give the output that the file describes; its `title`, else the file's name, is what the provider is told.

    Raises `RequestError` for a file that cannot be read, or holds no JSON object.
    """
    data = _read(path)
    schema: object = loads(data)
    if not isinstance(schema, dict):
        msg = (
            f'--output-schema {path}: this is no JSON Schema of an object, as in {{"type": "object", "properties": …}}'
        )
        raise RequestError(msg)
    described = cast("dict[str, object]", schema)
    title = described.get("title")
    name = _NO_NAME.sub("_", title if isinstance(title, str) else Path(path).name.partition(".")[0])
    return Output(schema=described, name=name[:_MOST_NAME].strip("_") or "answer")


def _read(path: str) -> bytes:
    """Give what the file, or the pipe, holds."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        msg = f"--output-schema {path} cannot be read: {(isinstance(error, OSError) and error.strerror) or error}"
        raise RequestError(msg) from error
    if len(data) > _MOST_BYTES:
        msg = f"--output-schema {path} is larger than {_MOST_BYTES >> 20} MiB: no provider takes such a schema"
        raise RequestError(msg)
    return data
