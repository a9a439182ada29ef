"""Which models an Ollama server has pulled, what they can do, and how one is loaded.

Contract: pure functions of the shape of `loomstream.dialects.discovery`. Lenient: a model without a readable name is
left out, a mistyped field counts as absent.

Source: https://docs.ollama.com/api/tags, https://docs.ollama.com/api-reference/show-model-details and
https://docs.ollama.com/faq, "preload a model".
"""

from __future__ import annotations

import msgspec

from loomstream.dialects import Target, host_headers
from loomstream.dialects.discovery import Abilities, HostModel
from loomstream.dialects.fields import JSONObject, as_list, as_object, as_text, count_of
from loomstream.dialects.ollama_chat.request import keep_alive, load_options, root_url
from loomstream.errors import BadFrame
from loomstream.messages import Request
from loomstream.wire import WireRequest
from loomstream.wire.json import loads, quote

_HEADERS = {"accept": "application/json"}
_ASKING = {**_HEADERS, "content-type": "application/json"}


def list_request(target: Target) -> WireRequest:
    """Give the request `GET {base_url}/api/tags`."""
    return WireRequest(method="GET", url=f"{root_url(target)}/api/tags", headers={**_HEADERS, **host_headers(target)})


def parse_list(body: bytes) -> tuple[HostModel, ...]:
    """Give the models that are pulled, in the server's order: the last used first."""
    fields = as_object(loads(body))
    if "models" not in fields:
        msg = f"this is no list of Ollama's models: {quote(body)}"
        raise BadFrame(msg)
    found = (_model(as_object(item)) for item in as_list(fields["models"]))
    return tuple(model for model in found if model.name)


def _model(fields: JSONObject) -> HostModel:
    details = as_object(fields.get("details"))
    return HostModel(
        name=as_text(fields.get("name")) or as_text(fields.get("model")),
        size_bytes=count_of(fields.get("size")) or 0,
        family=as_text(details.get("family")),
        parameters=as_text(details.get("parameter_size")),
        quantization=as_text(details.get("quantization_level")),
    )


def abilities_request(target: Target) -> WireRequest:
    """Give the request `POST {base_url}/api/show`."""
    body = msgspec.json.encode({"model": target.model})
    return WireRequest(url=f"{root_url(target)}/api/show", headers={**_ASKING, **host_headers(target)}, body=body)


def parse_abilities(body: bytes) -> Abilities:
    """Give what a model can do. Servers before 0.6.4 do not say; `thinking.values` came much later."""
    fields = as_object(loads(body))
    if not fields:
        msg = f"this is no description of an Ollama model: {quote(body)}"
        raise BadFrame(msg)
    info = as_object(fields.get("model_info"))
    levels = as_list(as_object(fields.get("thinking")).get("values"))
    return Abilities(
        capabilities=tuple(name for item in as_list(fields.get("capabilities")) if (name := as_text(item))),
        think_levels=tuple(level for level in levels if isinstance(level, str) and level),
        context_tokens=count_of(info.get(f"{as_text(info.get('general.architecture'))}.context_length")),
    )


def load_request(target: Target, request: Request) -> WireRequest:
    """Give the request `POST {base_url}/api/generate` without a prompt: the server loads the model and says so.

    The options are those of the request that decide how it is loaded: another window would load it anew.
    """
    fields: JSONObject = {"model": target.model, "stream": False, "keep_alive": keep_alive(request.keep_alive_s)}
    fields["options"] = load_options(request) or None
    body = msgspec.json.encode({name: value for name, value in fields.items() if value is not None})
    return WireRequest(url=f"{root_url(target)}/api/generate", headers={**_ASKING, **host_headers(target)}, body=body)
