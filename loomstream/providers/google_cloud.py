"""How the models on Google Cloud are reached: its hosts, and the paths of the publishers.

Contract: data for a row of the table, which says which publisher speaks which dialect. A key without a project reaches
Google's own models by paths without project and location ("express mode"); where there is one, `loomstream.auth.google`
discovers the setting `express`.

Source: of the hosts, the Anthropic SDK for Python, anthropic/lib/vertex; of the paths,
https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/use-partner-models,
https://cloud.google.com/vertex-ai/generative-ai/docs/maas/call-open-model-apis and
https://cloud.google.com/vertex-ai/generative-ai/docs/start/express-mode/vertex-ai-express-mode-api-reference.
"""

from __future__ import annotations

from collections.abc import Mapping

from loomstream.dialects import Quirks
from loomstream.providers import Profile

_PLACE = "/v1/projects/{project}/locations/{location}"
_OWN = "/publishers/google/models/{model}"

OWN = Quirks(path=f"{_PLACE}{_OWN}:generateContent", stream_path=f"{_PLACE}{_OWN}:streamGenerateContent?alt=sse")
"""Google's own models."""

HOSTS = (
    Profile(settings={"location": "global"}, base_url="https://aiplatform.googleapis.com"),
    Profile(settings={"location": "us"}, base_url="https://aiplatform.us.rep.googleapis.com"),
    Profile(settings={"location": "eu"}, base_url="https://aiplatform.eu.rep.googleapis.com"),
    Profile(
        settings={"express": "yes"},
        base_url="https://aiplatform.googleapis.com",
        quirks={"path": f"/v1{_OWN}:generateContent", "stream_path": f"/v1{_OWN}:streamGenerateContent?alt=sse"},
    ),
)
"""Where they are not at the region's own host; the last ones that apply count."""

OPEN_MODELS = Profile(
    models=("*/*",),
    dialect="openai_chat",
    quirks={"path": f"{_PLACE}/endpoints/openapi/chat/completions", "stream_path": ""},
)
"""The open models that Google serves, by `publisher/model`, such as `meta/llama-3.3-70b-instruct-maas`."""


def published(publisher: str, models: tuple[str, ...], dialect: str, quirks: Mapping[str, object]) -> Profile:
    """Give the profile of a publisher whose own protocol Google passes on."""
    raw = f"{_PLACE}/publishers/{publisher}/models/{{model}}"
    paths = {"path": f"{raw}:rawPredict", "stream_path": f"{raw}:streamRawPredict"}
    return Profile(models=models, dialect=dialect, quirks={**paths, **quirks})
