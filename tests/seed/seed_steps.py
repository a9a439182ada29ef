"""Every command, flag, variable, YAML block and troubleshooting step of the seed document, in its order.

Contract: data alone. A step says where in the seed it stands, what is typed, and what must come of it; `departs` says
in a sentence what differs from the seed's words, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from seed_hosts import Answer

CANARY = "sk-seed-canary-0123456789abcdef"
_JSON = "application/json"


class Step(NamedTuple):
    """One thing that the seed tells its reader to do.

    `yaml` is written to `~/.loom/looms.yaml` before (None: what is there stays). `typed` is a shell line; `{url}` is
    the loopback host. `shows` must all be in the output, `hides` in none of it.
    """

    where: str
    typed: str
    shows: tuple[str, ...] = ()
    yaml: str | None = None
    environ: Mapping[str, str] = {}
    stdin: str = ""
    exit_code: int = 0
    trouble: Answer | str | None = None
    sent: Mapping[str, str] = {}
    departs: str = ""


# --- keys: the table "Authentication Methods" -----------------------------------------------------------

_KEYRING_NAMES = (
    "anthropic_api_key", "bedrock_access_key_id", "openai_api_key", "azure_openai_api_key", "mistral_api_key",
    "gemini_api_key", "huggingface_token", "azure_openai_entra_token", "gcp_credentials",
)  # fmt: skip
_KEYRING = [
    step
    for name in _KEYRING_NAMES
    for step in (
        Step(
            "Authentication Methods: keyring command",
            f"looms config set-key {name}",
            (name,),
            stdin=CANARY
            if name != "gcp_credentials"
            else '{"type": "service_account", "private_key": "' + CANARY + '"}',
            departs="The key is piped in here; at a terminal it is asked for without an echo.",
        ),
        Step("Troubleshooting: verify credentials are set", f"looms config get-key {name}", ("loom/" + name,)),
        Step("Authentication Methods: keyring command", f"looms config delete-key {name} --yes", (name,)),
    )
]

_ASK = 'looms ask "Hello" --no-stats'
_FLAGS = [
    Step(
        f"Authentication Methods: CLI flag {flag}",
        f"echo {CANARY} | looms ask Hello --no-stats {flag} - --provider {provider} --base-url {{url}}{path}",
        yaml="",
        sent=sent,
        departs="The key is read from standard input (`-`): as an argument it works too, with a warning, "
        "because other users of the machine can see arguments.",
    )
    for flag, provider, path, sent in (
        ("--anthropic-key", "anthropic", "", {"x-api-key": CANARY}),
        ("--openai-key", "openai", "/v1", {"authorization": f"Bearer {CANARY}"}),
        ("--mistral-key", "mistral", "/v1", {"authorization": f"Bearer {CANARY}"}),
        ("--gemini-key", "gemini", "/v1beta", {"x-goog-api-key": CANARY}),
        ("--huggingface-token", "huggingface", "/v1", {"authorization": f"Bearer {CANARY}"}),
    )
]

# --- providers: each one's YAML block, with its variable ------------------------------------------------

_COMMON = "  temperature: {t}\n  max_tokens: 4096\n"


def _block(provider: str, *lines: str, temperature: float = 1.0) -> str:
    return f"llm:\n  provider: {provider}\n" + "".join(f"  {line}\n" for line in lines) + _COMMON.format(t=temperature)


_AWS = {"AWS_ACCESS_KEY_ID": "AKIASEEDCANARY000000", "AWS_SECRET_ACCESS_KEY": CANARY}
_AZURE = ("azure_openai_endpoint: {url}", "azure_openai_deployment_id: gpt-4o-deployment")
_PROVIDERS: list[tuple[str, str, dict[str, str], dict[str, str], str]] = [
    (
        "1. Anthropic Claude",
        _block("anthropic", "anthropic_model: claude-sonnet-4-5-20250929"),
        {"LOOM_LLM_ANTHROPIC_API_KEY": CANARY, "LOOM_LLM_ANTHROPIC_BASE_URL": "{url}"},
        {"x-api-key": CANARY},
        "",
    ),
    (
        "2. AWS Bedrock",
        _block(
            "bedrock",
            "bedrock_region: us-west-2",
            "bedrock_model_id: anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        {**_AWS, "LOOM_LLM_BEDROCK_ENDPOINT": "{url}"},
        {},
        "The block's line `bedrock_profile: default` is left out here: it names a file of the user's.",
    ),
    (
        "3. Ollama (Local)",
        _block(
            "ollama",
            "ollama_endpoint: {url}",
            "ollama_model: qwen2.5:7b",
            "timeout_seconds: 120",
            temperature=0.8,
        ),
        {},
        {},
        "The address is the loopback host of this transcript, not port 11434.",
    ),
    (
        "4. OpenAI",
        _block("openai", "openai_model: gpt-4o"),
        {"LOOM_LLM_OPENAI_API_KEY": CANARY, "LOOM_LLM_OPENAI_BASE_URL": "{url}/v1"},
        {"authorization": f"Bearer {CANARY}"},
        "",
    ),
    (
        "5. Azure OpenAI, API key",
        _block("azure-openai", *_AZURE),
        {"LOOM_LLM_AZURE_OPENAI_API_KEY": CANARY, "LOOM_LLM_AZURE_OPENAI_ENDPOINT": "{url}"},
        {"api-key": CANARY},
        "",
    ),
    (
        "5. Azure OpenAI, Entra ID",
        _block("azure-openai", *_AZURE),
        {"LOOM_LLM_AZURE_OPENAI_ENTRA_TOKEN": CANARY, "LOOM_LLM_AZURE_OPENAI_ENDPOINT": "{url}"},
        {"authorization": f"Bearer {CANARY}"},
        "",
    ),
    (
        "6. Mistral AI",
        _block("mistral", "mistral_model: mistral-large-latest"),
        {"LOOM_LLM_MISTRAL_API_KEY": CANARY, "LOOM_LLM_MISTRAL_BASE_URL": "{url}/v1"},
        {"authorization": f"Bearer {CANARY}"},
        "",
    ),
    (
        "7. Google Gemini",
        _block("gemini", "gemini_model: gemini-2.5-flash"),
        {"LOOM_LLM_GEMINI_API_KEY": CANARY, "LOOM_LLM_GEMINI_BASE_URL": "{url}/v1beta"},
        {"x-goog-api-key": CANARY},
        "The key goes in a header; the seed sends it in the address, where logs and errors would show it.",
    ),
    (
        "8. HuggingFace",
        _block("huggingface", "huggingface_model: meta-llama/Meta-Llama-3.1-70B-Instruct"),
        {"LOOM_LLM_HUGGINGFACE_TOKEN": CANARY, "LOOM_LLM_HUGGINGFACE_BASE_URL": "{url}/v1"},
        {"authorization": f"Bearer {CANARY}"},
        "",
    ),
    (
        "9. Google Vertex AI (planned in the seed)",
        _block(
            "vertex-ai",
            "vertex_project_id: my-project",
            "vertex_location: us-central1",
            "vertex_model: claude-3-5-sonnet@20241022",
        ),
        {},
        {},
        "Checked alone: who asks it must have credentials of Google's.",
    ),
]


def _provider_steps() -> list[Step]:
    steps: list[Step] = []
    for where, yaml, environ, sent, departs in _PROVIDERS:
        valid = Step(where, "looms config validate", ("looms.yaml",), yaml=yaml, environ=environ, departs=departs)
        steps.append(valid)
        if "Vertex" not in where:
            steps.append(Step(where, _ASK, environ=environ, sent=sent))
    return steps


# --- configuration reference, security, observability ---------------------------------------------------

_REFERENCE = [
    Step(
        "Common Parameters",
        "looms config show",
        ("llm.provider", "anthropic", "llm.temperature", "llm.max_tokens", "4096", "llm.timeout_seconds", "60"),
        yaml="llm:\n  provider: anthropic\n  temperature: 1.0\n  max_tokens: 4096\n  timeout_seconds: 60\n",
    ),
    Step("Common Parameters: the range of temperature", "looms config validate", ("temperature", "2"), exit_code=1,
         yaml="llm:\n  provider: anthropic\n  temperature: 2.5\n"),
    Step("Common Parameters", "looms config get llm.temperature", ("0",),
         yaml="llm:\n  provider: anthropic\n  temperature: 0\n",
         departs="Zero is a value and is sent; in the seed's code it counts as not set."),
    Step("Use System Keyring", "looms config list-keys", ("anthropic_api_key", "gemini_api_key", "gcp_credentials")),
    Step("Never Commit Secrets", "cd $(mktemp -d) && looms config init --provider anthropic --yes --gitignore --force "
         "&& cat .gitignore", ("*.key", "*credentials*.yaml", ".env")),
    Step("Observability: enable Hawk", "looms config validate", ("looms.yaml",),
         yaml="llm:\n  provider: anthropic\nobservability:\n  enabled: true\n  hawk_endpoint: http://localhost:9090\n"),
    Step("Cost tracking", "looms ask Hello --json | python3 -c 'import json, sys; cost = json.load(sys.stdin)"
         "[\"response\"][\"cost\"]; print(cost[\"provider\"], cost[\"model\"], cost[\"amount_usd\"])'",
         ("anthropic", "claude"),
         yaml="llm:\n  provider: anthropic\n",
         environ=_PROVIDERS[0][2],
         departs="Same fields, snake case; the amount is exact, and `null` where no price is known."),
    Step("Cost comparison: the typical task", "looms cost --input-tokens 500 --max-tokens 1000 "
         "--models anthropic:claude-sonnet-4-5-20250929,openai:gpt-4o,gemini:gemini-2.5-flash",
         ("0.0165", "0.01125", "0.00265"),
         departs="The seed's figures for the typical task (0.018, 0.0125, 0.0025) do not follow from its prices."),
]  # fmt: skip

# --- troubleshooting ------------------------------------------------------------------------------------


def _error(status: int, kind: str, message: str) -> Answer:
    body = f'{{"type": "error", "error": {{"type": "{kind}", "message": "{message}"}}}}'
    return Answer(status, _JSON, body.encode())


_ANTHROPIC = _PROVIDERS[0][2]
_TROUBLE = [
    Step("Unknown provider", "looms ask Hello", ("Anthropic", "anthropic"), exit_code=3,
         yaml="llm:\n  provider: Anthropic\n"),
    Step("Unknown provider", "looms doctor --offline", ("anthropic",), exit_code=1,
         yaml="llm:\n  provider: Anthropic\n"),
    Step("Authentication failed: nothing is set", "looms ask Hello", ("LOOM_LLM_ANTHROPIC_API_KEY",), exit_code=3,
         yaml="llm:\n  provider: anthropic\n"),
    Step("Authentication failed: nothing is set", "looms doctor --offline", ("anthropic_api_key",), exit_code=1),
    Step("Authentication failed: check environment variables", "env | grep -i anthropic | cut -d= -f1",
         ("LOOM_LLM_ANTHROPIC_API_KEY",), environ={"LOOM_LLM_ANTHROPIC_API_KEY": CANARY}),
    Step("Authentication failed: a wrong key", "looms ask Hello", ("invalid x-api-key",), exit_code=4,
         environ=_ANTHROPIC, trouble=_error(401, "authentication_error", "invalid x-api-key")),
    Step("Model not found", "looms ask Hello", ("claude-sonnet",), exit_code=5,
         environ=_ANTHROPIC, trouble=_error(404, "not_found_error", "model: claude-sonnet-4-5-20250929")),
    Step("Model not found: Ollama", "looms ask Hello", ("ollama pull llama9",), exit_code=5,
         yaml="llm:\n  provider: ollama\n  ollama_endpoint: {url}\n  ollama_model: llama9\n",
         trouble=Answer(404, _JSON, b'{"error": "model \'llama9\' not found"}')),
    Step("Timeout", "looms ask Hello", ("timeout_seconds",), exit_code=7,
         yaml="llm:\n  provider: anthropic\n  timeout_seconds: 0.3\n  rate_limit:\n    max_retries: 0\n",
         environ=_ANTHROPIC, trouble="silence",
         departs="The limit is on silence, not on the whole answer: a long answer that streams is not cut."),
    Step("Timeout: raise it", "looms config set llm.timeout_seconds 120 && looms config get llm.timeout_seconds",
         ("120",)),
    Step("Timeout: Ollama on a CPU", "looms config set llm.timeout_seconds 300 && looms config get "
         "llm.timeout_seconds", ("300",)),
]  # fmt: skip

_MIGRATION = [
    Step("Switching providers: before", _ASK, environ={**_PROVIDERS[0][2], **_PROVIDERS[1][2]},
         yaml="llm:\n  provider: anthropic\n  anthropic_model: claude-sonnet-4-5-20250929\n"),
    Step("Switching providers: after", _ASK, environ={**_PROVIDERS[0][2], **_PROVIDERS[1][2]},
         yaml="llm:\n  provider: bedrock\n  bedrock_region: us-west-2\n"
         "  bedrock_model_id: anthropic.claude-sonnet-4-5-20250929-v1:0\n"),
]  # fmt: skip

SECTIONS: dict[str, list[Step]] = {
    "Keys": _KEYRING,
    "Flags": _FLAGS,
    "Providers": _provider_steps(),
    "Configuration, security, observability": _REFERENCE,
    "Troubleshooting": _TROUBLE,
    "Migration": _MIGRATION,
}

NOT_TYPED = (
    ("`ollama pull`, `ollama serve`, the install script of Ollama", "another program's commands"),
    ("the Go types `LLMProvider`, `Client`, `Cost`", "Python's are in the API reference: `Model`, `Provider`, `Cost`"),
    ("an API key in Gemini's address", "sent as a header instead, so that no log shows it"),
    ("`embedding:`, `database:`, `server:` and others of a `looms.yaml`", "not of the LLM layer; accepted, not read"),
    (
        "`storage_type` and `sqlite_path` of `observability:`",
        (
            "accepted, told to have no effect: the seed's database holds evaluations, no calls; `mode: embedded` keeps "
            "calls in the audit log, which needs no flush and no lock over processes, and `looms log` sums them"
        ),
    ),
)
"""What the seed shows and this does not type, and why."""
