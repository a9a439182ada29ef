"""THE table of providers: one row a host.

To add an OpenAI-compatible host, write a row with `_host` and a line in the CHANGELOG; docs/CONTRIBUTING.md has the
steps.
"""

from __future__ import annotations

from msgspec import convert
from msgspec.structs import replace

from loomstream.dialects import Quirks
from loomstream.providers import BASE_MODEL, Profile, Provider, Setting, google_cloud
from loomstream.providers.families import (
    ANY_RESPONSES,
    BEDROCK_FAMILIES,
    CLAUDE,
    GEMINI_THINKING,
    LLAMA_CPP_RESPONSES,
    MISTRAL,
    OPENAI_ENCRYPTED,
    OPENAI_OUTPUT,
    OPENAI_REASONING,
    OPENAI_RESPONSES,
    OWN_OPTIONS,
    RESPONSES,
    SOUNDS,
)


def _host(
    name: str,
    base_url: str,
    *,
    keys: tuple[str, ...] = (),
    default_model: str = "",
    quirks: Quirks = Quirks(),  # noqa: B008 (frozen)
) -> Provider:
    """Give the row of an OpenAI-compatible host, with the customary variables, and `keys` where its key has others.

    A host on this machine may want no key.
    """
    upper = name.upper().replace("-", "_")
    lower = name.replace("-", "_")
    return Provider(
        name=name,
        base_url=base_url,
        key_optional=base_url.startswith("http://localhost"),
        key_environment=(f"LOOM_LLM_{upper}_API_KEY", f"{upper}_API_KEY", *keys),
        base_url_environment=(f"LOOM_LLM_{upper}_BASE_URL", f"{upper}_BASE_URL"),
        keyring=f"{lower}_api_key",
        default_model=default_model,
        model_environment=(f"LOOM_LLM_{upper}_MODEL",),
        quirks=quirks,
    )


TABLE: tuple[Provider, ...] = (
    Provider(
        name="anthropic",
        requests_per_minute=50,
        dialect="anthropic_messages",
        base_url="https://api.anthropic.com",
        auth="x-api-key",
        key_environment=("LOOM_LLM_ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY"),
        base_url_environment=("LOOM_LLM_ANTHROPIC_BASE_URL", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_ENDPOINT"),
        keyring="anthropic_api_key",
        default_model="claude-sonnet-4-5-20250929",
        model_environment=("LOOM_LLM_ANTHROPIC_MODEL", "ANTHROPIC_DEFAULT_MODEL"),
        quirks=Quirks(needs_max_tokens=4096),
        profiles=CLAUDE,
    ),
    Provider(
        name="openai",
        requests_per_minute=60,
        base_url="https://api.openai.com/v1",
        key_environment=("LOOM_LLM_OPENAI_API_KEY", "OPENAI_API_KEY"),
        base_url_environment=("LOOM_LLM_OPENAI_BASE_URL", "OPENAI_BASE_URL", "OPENAI_API_ENDPOINT"),
        keyring="openai_api_key",
        default_model="gpt-4o",
        model_environment=("LOOM_LLM_OPENAI_MODEL", "OPENAI_DEFAULT_MODEL"),
        settings=(
            Setting(
                name="organization",
                environment=("LOOM_LLM_OPENAI_ORGANIZATION", "OPENAI_ORG_ID", "OPENAI_ORGANIZATION"),
                help="the organisation that a request counts for, where the key belongs to several",
            ),
            Setting(
                name="project",
                environment=("LOOM_LLM_OPENAI_PROJECT", "OPENAI_PROJECT_ID", "OPENAI_PROJECT"),
                help="the project that a request counts for",
            ),
        ),
        quirks=Quirks(
            max_tokens_key="max_completion_tokens",
            end_user_key="safety_identifier",
            metadata_needs_store=True,
            headers={"openai-organization": "{organization}", "openai-project": "{project}"},
        ),
        profiles=(*OPENAI_REASONING, *OPENAI_OUTPUT, *OPENAI_RESPONSES),
    ),
    Provider(
        name="azure-openai",
        otel_name="azure.ai.openai",
        requests_per_minute=60,
        aliases=("azureopenai",),
        address_example="https://NAME.openai.azure.com",
        auth="azure",
        key_optional=True,  # an identity of this machine will do
        key_environment=("LOOM_LLM_AZURE_OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"),
        base_url_environment=("LOOM_LLM_AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_ENDPOINT"),
        keyring="azure_openai_api_key",
        model_environment=(
            "LOOM_LLM_AZURE_OPENAI_DEPLOYMENT_ID",
            "AZURE_OPENAI_DEPLOYMENT_ID",
            "AZURE_OPENAI_DEPLOYMENT",
            "AZURE_OPENAI_DEPLOYMENT_NAME",
        ),
        settings=(
            Setting(
                name="api_version",
                environment=(
                    "LOOM_LLM_AZURE_OPENAI_API_VERSION",
                    "AZURE_OPENAI_API_VERSION",
                    "OPENAI_API_VERSION",
                ),
                default="v1",
                help="v1, or a dated version of the API (2024-10-21), which has another address for each deployment",
            ),
            Setting(
                name="entra_token",
                environment=("LOOM_LLM_AZURE_OPENAI_ENTRA_TOKEN", "AZURE_OPENAI_ENTRA_TOKEN"),
                keyring="azure_openai_entra_token",
                help="a Microsoft Entra access token, in the place of the key",
            ),
            Setting(
                name=BASE_MODEL,
                environment=("LOOM_LLM_AZURE_OPENAI_BASE_MODEL",),
                help="the model behind the deployment (gpt-4o), for prices where an answer does not name it",
            ),
            Setting(name="scope", environment=("LOOM_LLM_AZURE_OPENAI_SCOPE",), help="what Entra tokens are asked for"),
            Setting(
                name="client_id",
                environment=("LOOM_LLM_AZURE_OPENAI_CLIENT_ID",),
                help="which of this machine's managed identities to use",
            ),
        ),
        # v1 by default: dated versions before 2024-12-01-preview refuse the models that reason. Those before 2024-09
        # refuse max_completion_tokens, so in the dated ones it is for the models that refuse max_tokens.
        quirks=Quirks(
            path="/openai/deployments/{model}/chat/completions?api-version={api_version}",
            base_suffix="/openai/v1",
            metadata_needs_store=True,
        ),
        profiles=(
            Profile(
                settings={"api_version": "v1"},
                quirks={"path": "/openai/v1/chat/completions", "max_tokens_key": "max_completion_tokens"},
            ),
            *OPENAI_REASONING,
            *OPENAI_OUTPUT,
            *OPENAI_ENCRYPTED,
            Profile(models=(), dialect=RESPONSES, quirks={"path": "/openai/v1/responses"}),
        ),
    ),
    Provider(
        name="mistral",
        otel_name="mistral_ai",
        requests_per_minute=60,
        base_url="https://api.mistral.ai/v1",
        key_environment=("LOOM_LLM_MISTRAL_API_KEY", "MISTRAL_API_KEY"),
        base_url_environment=("LOOM_LLM_MISTRAL_BASE_URL", "MISTRAL_BASE_URL"),
        keyring="mistral_api_key",
        default_model="mistral-large-latest",
        model_environment=("LOOM_LLM_MISTRAL_MODEL",),
        quirks=convert(MISTRAL, Quirks),
    ),
    Provider(
        name="huggingface",
        base_url="https://router.huggingface.co/v1",
        key_environment=("LOOM_LLM_HUGGINGFACE_TOKEN", "HF_TOKEN", "HUGGINGFACE_API_KEY", "HUGGINGFACE_TOKEN"),
        base_url_environment=("LOOM_LLM_HUGGINGFACE_BASE_URL", "HUGGINGFACE_BASE_URL"),
        keyring="huggingface_token",
        default_model="meta-llama/Meta-Llama-3.1-70B-Instruct",
        model_environment=("LOOM_LLM_HUGGINGFACE_MODEL",),
        # the header: chat-ui of the same house reads it from its router
        quirks=Quirks(routing_suffix=True, backend_header="x-inference-provider"),
    ),
    Provider(
        name="litellm",
        base_url="http://localhost:4000/v1",
        key_optional=True,
        key_environment=("LOOM_LLM_LITELLM_API_KEY", "LITELLM_API_KEY"),
        base_url_environment=(
            "LOOM_LLM_LITELLM_ENDPOINT",
            "LITELLM_ENDPOINT",
            "LOOM_LLM_LITELLM_BASE_URL",
            "LITELLM_BASE_URL",
        ),
        keyring="litellm_api_key",
        default_model="anthropic/claude-sonnet-4-5-20250929",
        model_environment=("LOOM_LLM_LITELLM_MODEL",),
        quirks=Quirks(cost_header="x-litellm-response-cost"),
    ),
    Provider(
        name="cohere",
        dialect="cohere_chat",
        base_url="https://api.cohere.com",
        key_environment=("LOOM_LLM_COHERE_API_KEY", "CO_API_KEY", "COHERE_API_KEY"),
        base_url_environment=("LOOM_LLM_COHERE_BASE_URL", "COHERE_BASE_URL", "CO_API_URL"),
        keyring="cohere_api_key",
        default_model="command-a-03-2025",
        model_environment=("LOOM_LLM_COHERE_MODEL", "COHERE_MODEL"),
    ),
    Provider(
        name="gemini",
        otel_name="gcp.gemini",
        requests_per_minute=60,
        dialect="gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        auth="x-goog-api-key",
        key_environment=("LOOM_LLM_GEMINI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"),
        base_url_environment=("LOOM_LLM_GEMINI_BASE_URL", "GEMINI_BASE_URL"),
        keyring="gemini_api_key",
        default_model="gemini-2.5-flash",
        model_environment=("LOOM_LLM_GEMINI_MODEL",),
        profiles=GEMINI_THINKING,
    ),
    Provider(
        name="vertex-ai",
        otel_name="gcp.vertex_ai",
        aliases=("vertex",),
        dialect="gemini",
        base_url="https://{location}-aiplatform.googleapis.com",
        auth="google",
        key_optional=True,  # an identity of this machine will do
        key_environment=("LOOM_LLM_VERTEX_API_KEY",),
        base_url_environment=("LOOM_LLM_VERTEX_BASE_URL",),
        keyring="vertex_api_key",
        default_model="gemini-3.5-flash-lite",
        model_environment=("LOOM_LLM_VERTEX_MODEL",),
        settings=(
            Setting(
                name="project",
                aliases=("project_id",),
                environment=(
                    "LOOM_LLM_VERTEX_PROJECT_ID",
                    "GOOGLE_CLOUD_PROJECT",
                    "GCLOUD_PROJECT",
                    "ANTHROPIC_VERTEX_PROJECT_ID",
                ),
                required=True,
                help="the id of the Google Cloud project; the credentials may tell it",
            ),
            Setting(
                name="location",
                environment=("LOOM_LLM_VERTEX_LOCATION", "GOOGLE_CLOUD_LOCATION", "GOOGLE_CLOUD_REGION"),
                default="global",
                help="a region (us-central1), a multi-region (us, eu), or global",
            ),
            Setting(
                name="express",
                environment=("LOOM_LLM_VERTEX_EXPRESS",),
                help="yes: Gemini without project and location; found where there is a key and no project",
            ),
            Setting(
                name="credentials",
                environment=("LOOM_LLM_VERTEX_CREDENTIALS",),
                keyring="gcp_credentials",
                help="a service account's key as JSON, in the place of Application Default Credentials",
            ),
            Setting(
                name="quota_project",
                environment=("LOOM_LLM_VERTEX_QUOTA_PROJECT", "GOOGLE_CLOUD_QUOTA_PROJECT"),
                help="the project that is billed, where it is not the credentials' own",
            ),
        ),
        quirks=google_cloud.OWN,
        profiles=(
            *google_cloud.HOSTS,
            *GEMINI_THINKING,
            google_cloud.published(
                "anthropic",
                ("claude-*",),
                "anthropic_messages",
                {
                    "anthropic_version": "vertex-2023-10-16",
                    "model_in_body": False,
                    "needs_max_tokens": 4096,
                    "url_sources": False,
                },
            ),
            *CLAUDE,
            google_cloud.published("mistralai", ("mistral-*", "ministral-*", "codestral-*"), "openai_chat", MISTRAL),
            google_cloud.OPEN_MODELS,
        ),
    ),
    Provider(
        name="bedrock",
        otel_name="aws.bedrock",
        requests_per_minute=100,
        dialect="bedrock_converse",
        base_url="https://bedrock-runtime.{region}.amazonaws.com",
        auth="aws",
        key_optional=True,  # AWS credentials will do
        key_environment=("LOOM_LLM_BEDROCK_BEARER_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"),
        base_url_environment=("LOOM_LLM_BEDROCK_ENDPOINT", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"),
        keyring="bedrock_bearer_token",
        default_model="us.anthropic.claude-sonnet-4-5-20250929-v1:0",  # without `us.` it cannot be called on demand
        model_environment=("LOOM_LLM_BEDROCK_MODEL_ID", "AWS_BEDROCK_MODEL_ID"),
        settings=(
            Setting(
                name="region",
                environment=("LOOM_LLM_BEDROCK_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"),
                help="the AWS region, which must offer the model; without it that of the profile in use, or us-west-2",
            ),
            Setting(
                name="profile",
                environment=("LOOM_LLM_BEDROCK_PROFILE",),
                help="a profile of ~/.aws/config; as an argument it comes before all other credentials",
            ),
            Setting(
                name="access_key_id",
                environment=("LOOM_LLM_BEDROCK_ACCESS_KEY_ID",),
                keyring="bedrock_access_key_id",
                help="of static or temporary AWS credentials",
            ),
            Setting(
                name="secret_access_key",
                environment=("LOOM_LLM_BEDROCK_SECRET_ACCESS_KEY",),
                keyring="bedrock_secret_access_key",
                help="the one that belongs to access_key_id",
            ),
            Setting(
                name="session_token",
                environment=("LOOM_LLM_BEDROCK_SESSION_TOKEN",),
                keyring="bedrock_session_token",
                help="of temporary AWS credentials",
            ),
        ),
        quirks=Quirks(output_by="tool"),
        profiles=BEDROCK_FAMILIES,
    ),
    Provider(
        name="ollama",
        dialect="ollama_chat",
        base_url="http://localhost:11434",
        auth="none",
        base_url_environment=("LOOM_LLM_OLLAMA_ENDPOINT", "OLLAMA_ENDPOINT", "OLLAMA_BASE_URL", "OLLAMA_HOST"),
        default_model="qwen2.5:7b",
        model_environment=("LOOM_LLM_OLLAMA_MODEL",),
        quirks=Quirks(output_grammar=True),
        profiles=(Profile(models=("*gpt-oss*",), quirks={"think_levels": ("low", "medium", "high")}),),
        discovery="loomstream.dialects.ollama_chat.discovery",
        silence_s=120.0,  # a model that is not loaded yet is loaded first
        connect_hint="start the server with `ollama serve`, or set OLLAMA_HOST to where it runs",
    ),
    Provider(
        name="local",
        auth="bearer",
        default_model="smollm2-135m-instruct",
        model_environment=("LOOM_LLM_LOCAL_MODEL",),
        quirks=Quirks(top_k=True, output_grammar=True, unknown=OWN_OPTIONS),
        profiles=LLAMA_CPP_RESPONSES,
        launch="loomstream.local:launch",
    ),
    Provider(
        name="openai-compatible",
        key_optional=True,
        key_environment=("LOOM_LLM_OPENAI_COMPATIBLE_API_KEY",),
        base_url_environment=("LOOM_LLM_OPENAI_COMPATIBLE_BASE_URL",),
        keyring="openai_compatible_api_key",
        model_environment=("LOOM_LLM_OPENAI_COMPATIBLE_MODEL",),
        quirks=Quirks(top_k=True),
        profiles=ANY_RESPONSES,
    ),
    _host(
        "alibaba",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        keys=("DASHSCOPE_API_KEY",),
        quirks=Quirks(top_k=True, output_by="tool"),  # a few of its models know JSON of a schema
    ),
    _host(
        "cerebras",
        "https://api.cerebras.ai/v1",
        quirks=Quirks(max_tokens_key="max_completion_tokens", unknown=("metadata",), documents="", audio_formats=()),
    ),
    replace(
        _host(
            "cloudflare",
            "https://api.cloudflare.com/client/v4/accounts/{account_id}/ai/v1",
            keys=("CLOUDFLARE_API_TOKEN",),
            quirks=Quirks(top_k=True),
        ),
        settings=(
            Setting(
                name="account_id",
                environment=("LOOM_LLM_CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_ACCOUNT_ID"),
                help="the account's id, which its dashboard shows under Workers AI",
            ),
        ),
    ),
    replace(
        _host(
            "databricks",
            "https://{workspace}",
            keys=("DATABRICKS_TOKEN",),
            # Each chunk tells the usage unasked.
            quirks=Quirks(
                stream_usage=False, path="/serving-endpoints/chat/completions", base_suffix="/serving-endpoints"
            ),
        ),
        base_url_environment=("LOOM_LLM_DATABRICKS_BASE_URL", "DATABRICKS_BASE_URL", "DATABRICKS_HOST"),
        settings=(
            Setting(
                name="workspace",
                environment=("LOOM_LLM_DATABRICKS_WORKSPACE", "DATABRICKS_WORKSPACE"),
                help="its host name, as dbc-123.cloud.databricks.com",
            ),
        ),
    ),
    replace(
        _host(
            "deepseek",
            "https://api.deepseek.com/v1",
            default_model="deepseek-flash",
            quirks=Quirks(
                reasoning_back="reasoning_content",
                unknown=OWN_OPTIONS,
                output_by="tool",
                json_schema=False,
                prefix_at="/beta",
                documents="",
                audio_formats=(),
            ),
        ),
        profiles=(
            Profile(models=("*reasoner*",), quirks={"output_by": "prompt"}),  # it refuses a tool that must be called
            Profile(models=(), dialect=RESPONSES, base_url="https://api.deepseek.com"),
        ),
    ),
    _host("doubleword", "https://api.doubleword.ai/v1", quirks=Quirks(top_k=True)),
    _host(
        "fireworks",
        "https://api.fireworks.ai/inference/v1",
        quirks=Quirks(top_k=True, reasoning_back="reasoning_content"),
    ),
    replace(
        _host(
            "github-copilot",
            "https://api.githubcopilot.com",
            keys=("GITHUB_COPILOT_TOKEN",),
            # It refuses a request without either.
            quirks=Quirks(headers={"copilot-integration-id": "{integration_id}", "editor-version": "{editor_version}"}),
        ),
        settings=(
            Setting(
                name="integration_id",
                environment=("LOOM_LLM_GITHUB_COPILOT_INTEGRATION_ID", "GITHUB_COPILOT_INTEGRATION_ID"),
                default="vscode-chat",
                help="the client that GitHub knows the token's app by",
            ),
            Setting(
                name="editor_version",
                environment=("LOOM_LLM_GITHUB_COPILOT_EDITOR_VERSION",),
                default="loomstream/1.0",
                help="the editor's name and version",
            ),
        ),
        profiles=(Profile(models=("*codex*",), dialect=RESPONSES),),  # refused on chat
    ),
    replace(
        _host(
            "gpustack",
            "http://localhost/v1",
            quirks=Quirks(top_k=True, reasoning_back="reasoning_content", unknown=OWN_OPTIONS),
        ),
        base_url_environment=("LOOM_LLM_GPUSTACK_BASE_URL", "GPUSTACK_BASE_URL", "GPUSTACK_API_BASE"),
    ),
    _host(
        "groq",
        "https://api.groq.com/openai/v1",
        quirks=Quirks(
            unknown=("logprobs", "prediction", "prompt_cache_key", "metadata"),
            output_by="tool",  # few of its models know JSON of a schema, and not while streaming
            documents="",
            audio_formats=(),
        ),
    ),
    replace(
        _host(
            "llamacpp",
            "http://localhost:8080/v1",
            quirks=Quirks(top_k=True, reasoning_back="reasoning_content", unknown=OWN_OPTIONS),
        ),
        profiles=LLAMA_CPP_RESPONSES,
    ),
    replace(
        _host("lmstudio", "http://localhost:1234/v1", quirks=Quirks(top_k=True, unknown=OWN_OPTIONS)),
        profiles=ANY_RESPONSES,
    ),
    replace(
        _host("mistralrs", "http://localhost:1234/v1", quirks=Quirks(top_k=True, unknown=OWN_OPTIONS)),
        profiles=ANY_RESPONSES,
    ),
    _host(
        "moonshot",
        "https://api.moonshot.ai/v1",
        quirks=Quirks(reasoning_back="reasoning_content", end_user_key="safety_identifier", output_by="tool"),
    ),
    _host("nvidia", "https://integrate.api.nvidia.com/v1"),
    replace(
        _host(
            "openrouter",
            "https://openrouter.ai/api/v1",
            quirks=Quirks(
                done_marker=True,
                top_k=True,
                cache_points="cache_control",
                documents="file_or_url",
                audio_formats=SOUNDS,
            ),
        ),
        profiles=(
            *ANY_RESPONSES,
            Profile(models=("openai/gpt-[5-9]*", "openai/o[1-9]*"), quirks={"encrypted_reasoning": True}),
            Profile(models=("openai/gpt-5-chat*",), quirks={"encrypted_reasoning": False}),
        ),
    ),
    _host(
        "perplexity",
        "https://api.perplexity.ai",
        default_model="sonar",
        quirks=Quirks(top_k=True, unknown=(*OWN_OPTIONS, "seed"), documents="file_url", audio_formats=()),
    ),
    _host("sambanova", "https://api.sambanova.ai/v1", quirks=Quirks(top_k=True)),
    replace(
        _host(
            "snowflake",
            "https://{account}.snowflakecomputing.com/api/v2/cortex/v1",
            keys=("SNOWFLAKE_PAT", "SNOWFLAKE_TOKEN"),
            quirks=Quirks(done_marker=True, max_tokens_key="max_completion_tokens"),
        ),
        settings=(
            Setting(
                name="account",
                environment=("LOOM_LLM_SNOWFLAKE_ACCOUNT", "SNOWFLAKE_ACCOUNT"),
                help="the account's identifier, as myorg-myaccount",
            ),
        ),
    ),
    _host(
        "together",
        "https://api.together.xyz/v1",
        quirks=Quirks(top_k=True, unknown=OWN_OPTIONS, logprobs_by="count", documents="", audio_formats=()),
    ),
    _host("venice", "https://api.venice.ai/api/v1", quirks=Quirks(top_k=True)),
    _host("vercel-gateway", "https://ai-gateway.vercel.sh/v1", keys=("AI_GATEWAY_API_KEY", "VERCEL_OIDC_TOKEN")),
    replace(
        _host(
            "vllm",
            "http://localhost:8000/v1",
            quirks=Quirks(top_k=True, reasoning_back="reasoning", unknown=OWN_OPTIONS),
        ),
        profiles=ANY_RESPONSES,
    ),
    replace(
        _host(
            "xai",
            "https://api.x.ai/v1",
            quirks=Quirks(reasoning_back="reasoning_content", unknown=("prediction", "prompt_cache_key", "metadata")),
        ),
        otel_name="x_ai",
        profiles=(
            Profile(models=("grok-4*", "grok-3-mini*", "grok-code*"), quirks={"refused": ("stop",)}),
            Profile(models=("grok-4", "grok-4-0709"), quirks={"refused": ("stop", "reasoning_effort")}),
            Profile(models=(), dialect=RESPONSES, quirks={"encrypted_reasoning": True, "unknown": ("metadata",)}),
            Profile(models=("*non-reasoning*",), quirks={"refused": (), "encrypted_reasoning": False}),
        ),
    ),
    _host(
        "zai",
        "https://api.z.ai/api/paas/v4",
        quirks=Quirks(
            reasoning_back="reasoning_content",
            unknown=("logprobs", *OWN_OPTIONS),
            output_by="prompt",  # it knows JSON of any shape, and no tool that must be called
            json_schema=False,
        ),
    ),
)
"""Every provider that ships with loomstream."""

BY_NAME = {name: row for row in TABLE for name in (row.name, *row.aliases)}
"""Each name and alias to its row."""
