"""Traces by OpenTelemetry's own instrumentation of FastAPI. Where they go is set by OpenTelemetry's variables."""

from __future__ import annotations

from fastapi import FastAPI

from ptune.errors import ConfigError

# Whole paths of probes, as regular expressions over URLs, separated by commas. Adapters may have such words in names.
UNTRACED = "^[^/]+//[^/]+/(health|ready|ping|metrics)$,^[^/]+//[^/]+/v2/health/[a-z]+$"


def instrument(app: FastAPI) -> None:
    """Let OpenTelemetry trace the requests of an application.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as err:
        raise ConfigError(
            "`telemetry=True` needs OpenTelemetry; install it: pip install 'ptune[telemetry]'", field="telemetry"
        ) from err
    if not isinstance(trace.get_tracer_provider(), TracerProvider):  # otherwise opentelemetry-instrument has set one
        provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "ptune"}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
    FastAPIInstrumentor.instrument_app(app, excluded_urls=UNTRACED)
