"""Events as Prometheus metrics; needs the extra `prometheus`."""

from __future__ import annotations

from typing import get_args

from ..errors import InputError, MissingExtraError
from .event import Moderation, RetryOutcome, ScanEvent
from .labels import LABELS, MAX_VALUES, SCORE_BUCKETS, SECONDS_BUCKETS, ScanLabels

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
except ImportError:
    raise MissingExtraError("PrometheusHook", "prometheus") from None


class PrometheusHook:
    """Counts events in a registry of prometheus_client, which the app exposes as it likes.

    `refusal_guard_scans_total` by model, route, verdict, signal and action; the histograms `refusal_guard_score` (of what a detector
    judged) and `refusal_guard_scan_duration_seconds`; `refusal_guard_retries_total` and `refusal_guard_moderation_total` by outcome; and
    `refusal_guard_scanner_errors_total`, when the guard did not run. Beyond `max_values` different models, or routes, they are "other".
    One hook serves many guards: a registry takes these metrics once, and a second hook for it is an InputError.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, *, max_values: int = MAX_VALUES) -> None:
        self._labels = ScanLabels(max_values)
        try:
            self._scans = Counter("refusal_guard_scans", "Responses judged.", LABELS, registry=registry)
            self._score = Histogram("refusal_guard_score", "P(refusal), as judged.", buckets=SCORE_BUCKETS, registry=registry)
            self._duration = Histogram(
                "refusal_guard_scan_duration_seconds", "Time to judge a response.", buckets=SECONDS_BUCKETS, registry=registry
            )
            self._retries = Counter("refusal_guard_retries", "Further attempts.", ["outcome"], registry=registry)
            self._moderation = Counter("refusal_guard_moderation", "What moderation did.", ["outcome"], registry=registry)
            self._errors = Counter("refusal_guard_scanner_errors", "Responses the guard failed to judge.", registry=registry)
        except ValueError:
            raise InputError("this registry has the metrics of a PrometheusHook: give that one to all guards") from None
        for counter, outcomes in ((self._retries, get_args(RetryOutcome)), (self._moderation, get_args(Moderation))):
            for outcome in outcomes:
                counter.labels(outcome)  # there from the start, so that the first one is an increase

    def __call__(self, event: ScanEvent) -> None:
        """Count an event."""
        self._scans.labels(**self._labels(event)).inc()
        self._duration.observe(event.latency)
        if event.detected:
            self._score.observe(event.score)
        if event.retry is not None:
            self._retries.labels(event.retry).inc()
        if event.moderation is not None:
            self._moderation.labels(event.moderation).inc()
        if event.error is not None:
            self._errors.inc()
