"""What a host says about its models: the values, and what a dialect offers to ask for them.

Contract: values and shapes only. A dialect whose hosts can be asked has a module of pure functions of this shape; who
asks (`loomstream.providers.discovery`) knows no wire.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from loomstream.dialects import Target
from loomstream.messages import Request
from loomstream.wire import WireRequest


class HostModel(Struct, frozen=True, kw_only=True):
    """A model that a host has. `size_bytes` is 0 and the texts are empty where the host does not say."""

    name: str
    size_bytes: int = 0
    family: str = ""
    parameters: str = ""
    """How many, in the host's words: `8.2B`."""
    quantization: str = ""


class Abilities(Struct, frozen=True, kw_only=True):
    """What one model can do, in the host's words; `capabilities` is empty where the host does not say.

    `think_levels` are the efforts that it takes by name; empty means on or off. `context_tokens` is what the model was
    made for: a host may give it less.
    """

    capabilities: tuple[str, ...] = ()
    think_levels: tuple[str, ...] = ()
    context_tokens: int | None = None


class DiscoveryDialect(Protocol):
    """What the module offers."""

    def list_request(self, target: Target) -> WireRequest:
        """Ask which models the host has."""
        ...

    def parse_list(self, body: bytes) -> tuple[HostModel, ...]:
        """Read the answer; raises `BadFrame` where it is none."""
        ...

    def abilities_request(self, target: Target) -> WireRequest:
        """Ask what the target's model can do."""
        ...

    def parse_abilities(self, body: bytes) -> Abilities:
        """Read the answer; raises `BadFrame` where it is none."""
        ...


class LoadingDialect(Protocol):
    """What the module offers besides, where its hosts load models on demand."""

    def load_request(self, target: Target, request: Request) -> WireRequest:
        """Have the model loaded, as `request` would have it, without a prompt; an answer below 400 says that it is."""
        ...
