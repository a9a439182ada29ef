"""Which model an example talks to: a scripted one that needs no network, or with `--local` the embedded one."""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager, nullcontext

import loomstream as ls
from loomstream.testing import scripted_model
from loomstream.testing.scripted import Script, ScriptedModel

LOCAL = "--local" in sys.argv


def model_for(*scripts: Script) -> AbstractAsyncContextManager[ls.Model | ScriptedModel]:
    """Give the model: `python examples/07_agent.py --local` asks a small real one on this machine."""
    return ls.connect("local", temperature=0, max_tokens=120) if LOCAL else nullcontext(scripted_model(*scripts))
