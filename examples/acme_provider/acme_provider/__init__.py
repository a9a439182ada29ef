"""Three providers in a package of their own, one for each way to add one to loomstream.

`acme` speaks a dialect of loomstream's, with quirks: a row is all that it takes. `acme-lines` speaks a dialect that
this package brings (`acme_provider.lines`). `acme-echo` is no HTTP host at all: a handler of its own gives the events
(`acme_provider.echo`).
"""

from loomstream.dialects import Quirks
from loomstream.providers import Provider, Setting

_KEY = ("LOOM_LLM_ACME_API_KEY", "ACME_API_KEY")

ACME = Provider(
    name="acme",
    dialect="openai_chat",
    base_url="https://{region}.llm.acme.example/v1",
    settings=(Setting(name="region", environment=("ACME_REGION",), default="eu", help="eu or us"),),
    key_environment=_KEY,
    keyring="acme_api_key",
    default_model="acme-large",
    quirks=Quirks(max_tokens_key="max_completion_tokens", top_k=True),
)

ACME_LINES = Provider(
    name="acme-lines",
    dialect="acme_lines",
    base_url="https://lines.acme.example",
    auth="x-api-key",
    key_environment=_KEY,
    keyring="acme_api_key",
    default_model="acme-small",
)

ACME_ECHO = Provider(
    name="acme-echo",
    handler="acme_provider.echo:make",
    auth="none",
    default_model="echo-1",
)
