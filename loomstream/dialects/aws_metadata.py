"""The labels that Amazon Bedrock keeps in the log of a call.

Contract: pure. Source: `RequestMetadata` of the API's service model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from loomstream.errors import RequestError

MOST = 16
"""How many labels a call may have."""

_TAKEN = r"[a-zA-Z0-9\s:_@$#=/+,.-]"
_KEY, _VALUE = re.compile(_TAKEN + "{1,256}"), re.compile(_TAKEN + "{0,256}")


def checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Give the labels. Raises `RequestError` for too many, and with its key for one that Bedrock refuses."""
    if len(metadata) > MOST:
        msg = f"metadata has {len(metadata)} entries: Bedrock takes {MOST}"
        raise RequestError(msg)
    for key, value in metadata.items():
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            msg = f"metadata[{key[:300]!r}]: Bedrock takes up to 256 letters, digits, spaces and :_@$#=/+,.- in both"
            raise RequestError(msg)
    return dict(metadata)
