"""THE table of what to do about an error, by its class and by how its provider is reached.

Contract: pure. The words are those of the command line and of `looms.yaml`; they name the setting, the command, the
variable and a value to try. docs/reference/troubleshooting.md explains the same causes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from loomstream.auth import API_KEY
from loomstream.config.keys import by_rank
from loomstream.config.table import fed_by
from loomstream.errors import (
    AuthFailed,
    BadRequest,
    ConnectFailed,
    ConnectTimeout,
    LoomstreamError,
    MissingKey,
    ModelNotFound,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    ServerFault,
    Timeout,
    TLSFailed,
    UnknownModel,
    UnknownProvider,
    WireError,
)
from loomstream.providers import Provider

_TIMEOUT_S, _SLOW_TIMEOUT_S = 120, 300
"""The values that the seed advises: for hosts, and for a model on this machine's processor."""


class Case(Struct, frozen=True, kw_only=True):
    """What an error happened to: the row, the model, and the place that the key came from."""

    row: Provider
    model: str = ""
    key_source: str = ""


def advice_for(error: LoomstreamError, case: Case) -> str:
    """Give what to do about an error; empty where its own sentence says all."""
    kind = next((ancestor for ancestor in type(error).__mro__ if ancestor in _ADVICE), None)
    return "" if kind is None else _ADVICE[kind](case)


# --- one function an error -----------------------------------------------------------------------


def _unknown_provider(case: Case) -> str:
    del case
    return (
        "correct the name where it is said (case matters): `looms config set llm.provider NAME`, or the variable "
        "LOOM_LLM_PROVIDER; `looms providers` lists the names"
    )


def how_to_set_key(row: Provider) -> str:
    """Give the ways to set a provider's key."""
    ways = [f"`looms config set-key {row.keyring}`"] if row.keyring else []
    ways += [f"set {name}" for name in by_rank(row.key_environment)[:1]]
    return " or ".join(ways) or "see `looms providers`"


def _missing_key(case: Case) -> str:
    return _MISSING_KEY.get(case.row.auth, "{ways}").format(ways=how_to_set_key(case.row))


_MISSING_KEY: Mapping[str, str] = {
    "aws": "{ways}; or give this machine AWS credentials: aws configure, aws sso login, a role, or llm.bedrock_profile",
    "azure": "{ways}, or `looms config set-key azure_openai_entra_token`, or run az login",
    "google": "{ways}, or run gcloud auth application-default login",
}


def _auth_failed(case: Case) -> str:
    source = f"the key comes from {case.key_source}: " if case.key_source else ""
    more = _AUTH_FAILED.get(case.row.auth, "")
    name = case.row.keyring or API_KEY
    return f"{source}check it (`looms config get-key {name}`) and set it again: {how_to_set_key(case.row)}{more}"


_AUTH_FAILED: Mapping[str, str] = {
    "aws": "; the identity needs bedrock:InvokeModel and bedrock:InvokeModelWithResponseStream, and the model's access "
    "must be requested in the AWS console (Bedrock, Model access) for the region",
    "azure": "; an identity needs the role Cognitive Services OpenAI User on the resource",
    "google": "; an identity needs the role Vertex AI User on the project",
}


def _model_not_found(case: Case) -> str:
    said = _MODEL_NOT_FOUND.get(case.row.auth) or _MODEL_NOT_FOUND.get(case.row.dialect) or _MODEL_NOT_FOUND[""]
    fed = fed_by(case.row.name, "model")
    setting = fed.path if fed is not None else "llm.model"
    return said.format(model=case.model, setting=setting)


_MODEL_NOT_FOUND: Mapping[str, str] = {
    "aws": "request access to {model} in the AWS console (Bedrock, Model access), or set a region that offers it: "
    "`looms config set llm.bedrock_region REGION`; many models need the prefix of a region, such as us. or eu.",
    "azure": "{setting} is the name of a deployment: check it, and the resource's region, in the Azure portal; "
    "`looms config set {setting} NAME`",
    "google": "check the model id, and that llm.vertex_location offers it: `looms config set {setting} MODEL`",
    "ollama_chat": "run `ollama pull {model}`, or `looms config set {setting} MODEL` with one that `ollama list` shows",
    "anthropic_messages": "check the model id against the provider's documentation, dates included: "
    "`looms config set {setting} MODEL`; `looms models` lists those that are known",
    "": "check the model id, and that your key may use it: `looms config set {setting} MODEL`; `looms models` lists "
    "those that are known",
}


def _unknown_model(case: Case) -> str:
    fed = fed_by(case.row.name, "model")
    return f"`looms config set {fed.path if fed is not None else 'llm.model'} MODEL`"


def _timeout(case: Case) -> str:
    value = _SLOW_TIMEOUT_S if case.row.silence_s else _TIMEOUT_S
    return f"wait longer: `looms config set llm.timeout_seconds {value}`, or LOOM_LLM_TIMEOUT_SECONDS={value}"


def _connect_timeout(case: Case) -> str:
    return f"check the network, HTTPS_PROXY, and the address{_address(case)}"


def _connect_failed(case: Case) -> str:
    return case.row.connect_hint or _connect_timeout(case)


def _address(case: Case) -> str:
    fed = fed_by(case.row.name, "base_url")
    return f" ({fed.path})" if fed is not None else ""


def _said(text: str) -> Callable[[Case], str]:
    return lambda case: text.format(provider=case.row.name)


_ADVICE: Mapping[type[BaseException], Callable[[Case], str]] = {
    UnknownProvider: _unknown_provider,
    UnknownModel: _unknown_model,
    MissingKey: _missing_key,
    AuthFailed: _auth_failed,
    ModelNotFound: _model_not_found,
    Timeout: _timeout,
    ConnectTimeout: _connect_timeout,
    ConnectFailed: _connect_failed,
    TLSFailed: _said("check this machine's clock, and SSL_CERT_FILE where a proxy has certificates of its own"),
    QuotaExhausted: _said("add credit, or raise the limit, in the console of {provider}; or use another provider"),
    RateLimited: _said("wait, or send less: `looms config set llm.rate_limit.requests_per_second 0.5`"),
    Overloaded: _said("try again later, or name a fallback: middleware.failover in looms.yaml"),
    ServerFault: _said("try again later; it is a fault of {provider}"),
    BadRequest: _said("check the model and the settings: `looms providers {provider}`"),
    WireError: _said("check the address: what answers there is no {provider}"),
}
"""Each class of error with what to do; the nearest class counts."""
