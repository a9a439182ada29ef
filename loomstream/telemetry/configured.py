"""The telemetry that `observability:` of `looms.yaml` asks for, as middleware.

Contract: `none`, or `enabled: false`, is nothing. Where no `mode` is given it is that of the `provider` (`hawk`:
`service`, else `otel`), else `otel` with an `otlp_endpoint`, `service` with a `hawk_endpoint`, or nothing. `otel`
without an endpoint uses the SDK that the program has set up, `embedded` keeps the audit log, as `service` does with
`prefer_embedded`. Models with the same settings share one exporter, which sends what is left when the interpreter ends.
Nothing is sent and no extra is loaded before a middleware is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from loomstream.config.keys import resolve_key_sync
from loomstream.config.settings import Observability
from loomstream.config.table import row_of
from loomstream.errors import ConfigError
from loomstream.handler import Middleware
from loomstream.transport.proxies import is_loopback
from loomstream.wire import Secret

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from loomstream.telemetry.hawk_exporter import HawkExporter

_SPAN_NAMES = ("chat", "llm.completion")
"""What a call's span is called here, and in the seed system."""
_TRACES, _METRICS = "/v1/traces", "/v1/metrics"
_DEFAULT_INTERVAL_S = 10.0
_BY_PROVIDER = {"": "none", "hawk": "service", "otel": "otel", "otlp": "otel"}

_exporters: dict[tuple[str, str, float], HawkExporter] = {}


class _SDK(NamedTuple):
    """The providers of an SDK that was set up here."""

    tracers: TracerProvider
    meters: MeterProvider


_Pairs = tuple[tuple[str, str], ...]
_sdks: dict[tuple[str, _Pairs, float, _Pairs], _SDK] = {}


def configured(settings: Observability, provider: str = "", model: str = "") -> tuple[Middleware, ...]:
    """Give the middleware for a model, to be put before all others; empty where nothing is asked for.

    Raises `ConfigError` for an endpoint that is missing or none, plain http to another machine (Hawk: always, a
    collector: unless `otlp_insecure`), a log that cannot be written, and where the extra `otel` is not installed.
    """
    mode = _mode(settings) if settings.enabled else "none"
    mode = "embedded" if mode == "service" and settings.prefer_embedded else mode
    content = settings.capture_content
    match mode:
        case "otel":
            return (_otel(settings, provider, model),)
        case "service":
            from loomstream.telemetry.hawk import hawk  # noqa: PLC0415 (each of them only where it is asked for)

            return (hawk(_exporter(settings), provider=provider, model=model, content=content),)
        case "embedded":
            from loomstream.telemetry.audit import audit  # noqa: PLC0415 (the same)

            return (audit(provider=provider, model=model, content=content),)
        case _:
            return ()


def _mode(settings: Observability) -> str:
    if settings.mode or settings.provider:
        return settings.mode or _BY_PROVIDER[settings.provider or ""]
    if settings.otlp_endpoint:
        return "otel"
    return "service" if settings.hawk_endpoint else "none"


def _interval_s(settings: Observability) -> float:
    return settings.flush_interval or _DEFAULT_INTERVAL_S


def _exporter(settings: Observability) -> HawkExporter:
    from loomstream.telemetry.hawk_exporter import HawkExporter  # noqa: PLC0415 (the same)

    if not settings.hawk_endpoint:
        msg = "observability.mode is service: it needs observability.hawk_endpoint, Hawk's address"
        raise ConfigError(msg)
    key = settings.hawk_api_key or Secret("")
    known = (settings.hawk_endpoint, key.reveal(), _interval_s(settings))
    if known not in _exporters:
        _exporters[known] = HawkExporter(settings.hawk_endpoint, api_key=key or _kept_key, interval_s=known[2])
    return _exporters[known]


def _kept_key() -> Secret | None:
    """Give the key that the keyring has, where no argument, variable or file has one. Raises `ConfigError`."""
    notes: list[str] = []
    name = row_of("observability.hawk_api_key").keyring
    found = resolve_key_sync(provider="Hawk", keyring_name=name, notes=notes)
    if found is None and notes:
        msg = f"Hawk's key is not set, and may be in the keyring: {'; '.join(notes)}"
        raise ConfigError(msg)
    return None if found is None else found.secret


def _otel(settings: Observability, provider: str, model: str) -> Middleware:
    from loomstream.telemetry.otel import otel  # noqa: PLC0415 (the same)

    content = settings.capture_content or None  # where the file does not ask, the conventions' variable may
    if not settings.otlp_endpoint:
        return otel(provider, model, content=content)
    otel(provider, model)  # says how to install what is missing
    sdk = _sdk(settings, settings.otlp_endpoint)
    prefixes = settings.otlp_include_spans
    if prefixes and not any(name.startswith(prefix) for name in _SPAN_NAMES for prefix in prefixes):
        return otel(provider, model, content=content, tracer_provider=_no_tracers(), meter_provider=sdk.meters)
    return otel(provider, model, content=content, tracer_provider=sdk.tracers, meter_provider=sdk.meters)


def _no_tracers() -> TracerProvider:
    from opentelemetry.trace import NoOpTracerProvider  # noqa: PLC0415 (an extra)

    return NoOpTracerProvider()


def _sdk(settings: Observability, endpoint: str) -> _SDK:
    base = _base(endpoint, insecure=settings.otlp_insecure)
    headers = {name: value.reveal() for name, value in (settings.otlp_headers or {}).items()}
    names = {"service.name": settings.service_name, "service.version": settings.service_version}
    resource = tuple((name, value) for name, value in names.items() if value)
    known = (base, tuple(sorted(headers.items())), _interval_s(settings), resource)
    if known not in _sdks:
        _sdks[known] = _set_up(base, headers, known[2], dict(resource))
    return _sdks[known]


def _set_up(base: str, headers: Mapping[str, str], interval_s: float, names: Mapping[str, str]) -> _SDK:
    """Set up an SDK; it shuts down at the interpreter's exit. What `names` lacks, `OTEL_SERVICE_NAME` says."""
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        msg = "observability.otlp_endpoint needs OpenTelemetry's SDK: pip install 'loomstream[otel]'"
        raise ConfigError(msg) from error
    resource = Resource.create(dict(names))
    tracers = TracerProvider(resource=resource)
    spans = OTLPSpanExporter(base + _TRACES, headers=dict(headers))
    tracers.add_span_processor(BatchSpanProcessor(spans, schedule_delay_millis=interval_s * 1000))
    metrics = OTLPMetricExporter(base + _METRICS, headers=dict(headers))
    reader = PeriodicExportingMetricReader(metrics, export_interval_millis=interval_s * 1000)
    return _SDK(tracers, MeterProvider(metric_readers=[reader], resource=resource))


def _base(endpoint: str, *, insecure: bool) -> str:
    """Give the collector's address without the path of one signal; `host:port` gets a scheme."""
    text = endpoint.strip()
    host_alone = "://" not in text
    parts = urlsplit(f"//{text}" if host_alone else text)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    plain = insecure or is_loopback(host)
    scheme = ("http" if plain else "https") if host_alone else parts.scheme
    if not host or port == 0 or scheme not in {"http", "https"}:
        msg = "observability.otlp_endpoint is no address: write it as https://host:4318"
        raise ConfigError(msg)
    if scheme == "http" and not plain:
        msg = f"observability.otlp_endpoint {endpoint!r} is plain http to another machine: use https, or otlp_insecure"
        raise ConfigError(msg)
    return parts._replace(scheme=scheme, path=parts.path.removesuffix(_TRACES).rstrip("/")).geturl()
