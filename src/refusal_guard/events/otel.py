"""Events as OpenTelemetry's evaluation events and metrics; needs the extra `otel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import MissingExtraError
from .evaluation import EVENT_NAME, evaluation_result
from .event import ScanEvent
from .labels import MAX_VALUES, SCORE_BUCKETS, SECONDS_BUCKETS, ScanLabels

try:
    from opentelemetry._logs import SeverityNumber, get_logger
    from opentelemetry.metrics import get_meter
except ImportError:
    raise MissingExtraError("OpenTelemetryHook", "otel") from None

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider

_SCOPE = "refusal_guard"


class OpenTelemetryHook:
    """Emits a `gen_ai.evaluation.result` event within the span of the call, and counts the metrics that PrometheusHook has.

    The event is that of the conventions for generative AI (status: development); what they have no name for stands under `refusal_guard.`.
    Metrics have dots where Prometheus has underscores: `refusal_guard.scans`, `.score`, `.scan.duration` (seconds), `.retries`,
    `.moderation`, `.scanner_errors`. Without providers, those set for the process are taken, whenever they are set.
    """

    def __init__(
        self, *, logger_provider: LoggerProvider | None = None, meter_provider: MeterProvider | None = None, max_values: int = MAX_VALUES
    ) -> None:
        self._labels, self._logger = ScanLabels(max_values), get_logger(_SCOPE, logger_provider=logger_provider)
        meter = get_meter(_SCOPE, meter_provider=meter_provider)
        self._scans, self._retries, self._moderation, self._errors = (
            meter.create_counter(f"{_SCOPE}.{name}") for name in ("scans", "retries", "moderation", "scanner_errors")
        )
        self._score = meter.create_histogram(f"{_SCOPE}.score", explicit_bucket_boundaries_advisory=SCORE_BUCKETS)
        self._duration = meter.create_histogram(f"{_SCOPE}.scan.duration", "s", explicit_bucket_boundaries_advisory=SECONDS_BUCKETS)

    def __call__(self, event: ScanEvent) -> None:
        """Emit and count an event."""
        level = SeverityNumber.WARN if event.refused or event.not_run else SeverityNumber.INFO
        moment, told = round(event.time * 1e6) * 1_000, evaluation_result(event)
        self._logger.emit(timestamp=moment, severity_number=level, event_name=EVENT_NAME, attributes=told)
        self._scans.add(1, self._labels(event))
        self._duration.record(event.latency)
        if event.detected:
            self._score.record(event.score)
        if event.retry is not None:
            self._retries.add(1, {"outcome": event.retry})
        if event.moderation is not None:
            self._moderation.add(1, {"outcome": event.moderation})
        if event.error is not None:
            self._errors.add(1)
