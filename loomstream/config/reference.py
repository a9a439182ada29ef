"""The reference of `looms.yaml` in Markdown, made from the table of settings.

Contract: pure. `docs/reference/configuration.md` is what `reference` gives, and a test holds it to that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from loomstream.catalog.said import FIELDS
from loomstream.config.kinds import KINDS, plain
from loomstream.config.settings import SettingRow
from loomstream.config.table import CALL_ROWS, MIDDLEWARE_ROWS, PROVIDER_ROWS, SETTINGS
from loomstream.providers.custom import OF_A_CALL, OF_OTHERS

_INTRODUCTION = """# Configuration

<!-- Made by `python tests/config/test_reference.py --write` from the table of settings: do not edit. -->

Everything can be set in a file, `looms.yaml`, or by an environment variable; nothing has to be. A program that
names no provider, `connect()`, or `looms ask "…"`, is moved from one provider to another by its configuration
alone:

```yaml
llm:
  provider: anthropic
  anthropic_model: claude-sonnet-4-5-20250929
  temperature: 1.0
  max_tokens: 4096
```

## Where the file is

The first that is there: what `--config` or `LOOM_CONFIG` names; `looms.yaml` in `LOOM_DATA_DIR` (default
`~/.loom`), in the working folder, in the machine's folder (`/etc/loom`; on macOS `/Library/Application
Support/loom` before it; on Windows `%PROGRAMDATA%\\loom`). For editors there is a JSON Schema,
`loomstream/config/looms.schema.json`:

```yaml
# yaml-language-server: $schema=PATH/TO/looms.schema.json
```

## Which value counts

The strongest layer that sets it, for every setting:

1. an argument of a function, an option of the command line;
2. its `LOOM_…` variable;
3. the file;
4. the vendor's own variable (`OPENAI_API_KEY`, `AWS_REGION`);
5. for secrets, the system's keyring (`looms config set-key`), then what the machine itself is allowed;
6. the default.

A value of zero is a value: `temperature: 0`, `max_retries: 0`. A blank variable, and a key without a value, are
none. What is not set is not sent. `Settings.origin("llm.openai_model")` says which layer it was, and the file's
line:

```python
from loomstream.config.load import load

settings = load()
settings.value("llm.openai_model")      # 'gpt-4o'
settings.origin("llm.openai_model")     # Origin(layer='file', where='/home/me/.loom/looms.yaml:3')
connect(config=load(overrides={"llm.temperature": 0}))
```

What cannot be is an error before anything is sent, with file, line, column and path:

    ~/.loom/looms.yaml:4:3: llm.temprature: there is no key 'temprature': did you mean 'temperature'?

## Secrets, and files of others

A secret in the file is accepted with a warning, and refused where others can read the file (`chmod 600`). Better
keep it in the keyring. A file that anybody may write is not read. `looms config set` changes no file that its owner
has made read-only.

A `looms.yaml` that was merely found in the working folder may come from anybody: from a repository that you have
just cloned. A file that belongs to another user of the machine (not you, not root) may be changed by them, wherever
it is and whoever names it. Neither may say

- where a credential goes: an address that is not the provider's own (an Azure resource, `*.openai.azure.com`, is its
  tenant's), or a host of its own to answer;
- whose account is used: `bedrock_profile`, a project, an organisation, a managed identity, or a header for
  one (`OpenAI-Project`);
- `api_key_env`, `allow_http`, addresses of telemetry on other machines;
- whether and where calls are reported, where a variable asks for reports (`HAWK_ENDPOINT`, …): an audit would end
  unseen;
- what a model costs (`models:`), for budgets are kept by it;
- middleware of installed packages: their code would run as the file says.

It is an error, with the place. Provider, model, region, temperature, limits and the like it may choose. Name the file
(`--config looms.yaml`, `LOOM_CONFIG=looms.yaml`) to say that it is yours; make another user's file yours (`chown`).
The first two may be allowed with `--allow-custom-host` (`connect(allow_custom_host=True)`), and are no matter where the
only credential stands beside the address.

## Seeing what is sent

`LOOM_DEBUG_BEDROCK=1` shows each request to Bedrock on standard error before it is sent, whole, credentials masked:
prompts are in it. Every provider has such a variable (`LOOM_DEBUG_` and its name: `LOOM_DEBUG_AZURE_OPENAI`); it is
no setting of the file. To keep requests and answers, use `connect(record=…)`.

## Who answers

Where a program names nobody: `active_provider`, or `llm.provider`, whichever the stronger layer sets; else the only
provider that has a key in the file, in a variable, or in the keyring, in this order; else the only one for which
this machine has an identity of its own; several are an error that lists them. Without any, the embedded model.

An identity is known by signs on this machine alone, for no request is sent to find one, and counts where the extra
that uses it is installed: for AWS `AWS_PROFILE`, `AWS_ACCESS_KEY_ID`, a web identity or a container's, or
`~/.aws/credentials`; for Google, with a project set, `GOOGLE_APPLICATION_CREDENTIALS` or the file that `gcloud auth
application-default login` writes; for Azure, with address and deployment set, `AZURE_CLIENT_SECRET` and its like, a
managed identity's variables, or the login of `az`. The role of a virtual machine has no sign: name the provider.
"""

_POOL = """
## `providers:`

A list of providers under names of your own. Each is a host (`base_url`), or a built-in `provider`; what an entry
may say is in [Add a provider of your own](../how-to/custom-providers.md). It may also say {keys}, as `llm:` does,
and with `provider` what `llm:` has for that provider. What it does not say, `llm:` says.

```yaml
llm: {{temperature: 0.7}}
active_provider: main
providers:
  - {{name: main, provider: anthropic, anthropic_model: claude-sonnet-4-5-20250929}}
  - {{name: fast, provider: ollama, ollama_model: "qwen2.5:7b", timeout_seconds: 300}}
  - {{name: acme, base_url: "https://llm.acme.example/v1", model: acme-large, api_key_env: ACME_API_KEY}}
```
"""

_MIDDLEWARE = """
## `middleware:`

What stands between a program and the provider, by name. Without it calls are counted, retried, held to the
provider's limits and timed. Outermost first they work in this order: `cache`, those of installed packages,
`failover`, the count of costs, `retry`, `budget`, `circuit_breaker`, `limits`, `timeout`. `failover` asks entries
of `providers:` in turn. A name alone switches one on:

```yaml
middleware:
  retry: {max_retries: 4}
  budget: {limit_usd: 5, per: day}
  failover: {to: [fast, acme]}
  cache:
```

An installed package offers more of them by entry points of the group `loomstream.middleware`: a function that takes
the options and gives a `Middleware`. Code is never named by its path.
"""

_MODELS = """
## `models:`

What you know of models, by `PROVIDER:MODEL`, in the place of what the catalog says: a price of your own contract, the
window of a model on your own host. A model that the catalog does not know becomes known. `looms models`, `looms
cost`, budgets and the cost of each call go by it.

```yaml
models:
  openai:gpt-4o:
    input: 2.00               # US dollars per million tokens; a price needs both
    output: 8.00
    as_of: "2026-11-01"
  acme:acme-large:            # of a provider of your own
    context_tokens: 32768
    max_output_tokens: 4096
    vision: false
    tools: native
    free: true
  anthropic:claude-sonnet-4-5-20250929: {{deprecated_on: "2027-01-31", successor: claude-sonnet-5-5}}
```

| field | takes | meaning |
|---|---|---|
{rows}
What is said holds in the whole process from the moment at which `connect`, or a command, uses the file; where
two files speak of one model, the one that was used last counts. `loomstream.catalog.override` says the same in
code, and wins. A file that was merely found in the working folder cannot say what a model costs.
"""


_NOT_READ = """
## What is not read

{names}: parts of the seed system's file that are not about models. Every other key is an error.
"""


def reference() -> str:
    """Give the page."""
    shared = [row for row in SETTINGS if row.section in {"", "llm"} and not row.provider and row not in CALL_ROWS]
    calls = [row for row in CALL_ROWS if row.section == "llm"]
    rates = [row for row in CALL_ROWS if row.section != "llm"]
    parts = [
        _INTRODUCTION,
        "\n## `llm:` for every provider\n\n",
        *_table([*shared, *calls]),
        "\n## `llm: rate_limit:`\n\nThe same keys may stand in a `rate_limit:` at the top.\n\n",
        *_table(rates),
        *_of_providers(),
        _POOL.format(keys=", ".join(f"`{key}`" for key in OF_A_CALL)),
        _MODELS.format(rows="".join(f"| `{name}` | {row.words} | {row.help} |\n" for name, row in FIELDS.items())),
        _MIDDLEWARE,
        "\n",
        *_table(MIDDLEWARE_ROWS),
        "\n## `observability:`\n\n",
        *_table([row for row in SETTINGS if row.section == "observability"]),
        _NOT_READ.format(names=", ".join(f"`{name}:`" for name in OF_OTHERS)),
    ]
    return "".join(parts)


def _of_providers() -> Iterator[str]:
    names = dict.fromkeys(row.provider for row in PROVIDER_ROWS)
    for name in names:
        yield f"\n## `llm:` for {name}\n\n"
        yield from _table([row for row in PROVIDER_ROWS if row.provider == name])


def _table(rows: Iterable[SettingRow]) -> Iterator[str]:
    yield "| key | takes | default | variables | meaning |\n|---|---|---|---|---|\n"
    for row in rows:
        variables = " ".join(f"`{name}`" for name in (*row.environment, *row.vendor_environment))
        yield f"| `{row.path}` | {_takes(row)} | {_default(row)} | {variables} | {_meaning(row)} |\n"


def _takes(row: SettingRow) -> str:
    if row.choices:
        return ", ".join(f"`{choice}`" for choice in row.choices)
    words = KINDS[row.kind].words.partition(" (")[0].partition(", as a")[0].partition(", such as")[0]
    bounds = f", {row.least or 0:g} to {plain(row.most)}" if row.most is not None else ""
    return words + bounds


def _default(row: SettingRow) -> str:
    if row.default is None:
        return "—"
    return f"`{str(row.default).lower() if isinstance(row.default, bool) else row.default}`"


def _meaning(row: SettingRow) -> str:
    said = [
        row.help,
        "**secret**" + (f", in the keyring `{row.keyring}`" if row.keyring else "") if row.secret else "",
        f"deprecated: use {row.deprecated}" if row.deprecated else "",
        f"also `{'`, `'.join(row.aliases)}`" if row.aliases else "",
    ]
    return "; ".join(filter(None, said)).replace("|", "\\|")
