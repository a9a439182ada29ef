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


def read_schema(path: str) -> Output:
    """Give the output that the file describes; its `title`, else the file's name, is what the provider is told.

    Raises `RequestError` for a file that cannot be read, or holds no JSON object.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        msg = f"--output-schema {path} cannot be read: {error.strerror or error}"
        raise RequestError(msg) from error
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
