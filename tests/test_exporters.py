"""Logs, Prometheus metrics and OpenTelemetry events, in the real libraries."""

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import prometheus_client
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from processes import run_python

from refusal_guard import Guard, InputError, Label, Reason, ScanEvent
from refusal_guard.errors import DetectorError
from refusal_guard.events import LoggingHook, tagged
from refusal_guard.events.labels import BoundedValues
from refusal_guard.testing import FixedDetector, RecordingHook

try:
    from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter
except ImportError:  # before 1.39
    from opentelemetry.sdk._logs.export import InMemoryLogExporter as InMemoryLogRecordExporter

from refusal_guard.events.otel import OpenTelemetryHook
from refusal_guard.events.prometheus import PrometheusHook

CANARY = "canary-7c1f"
BASE = {"time": 1_700_000_000.25, "label": "refusal", "score": 0.9, "threshold": 0.5, "refused": True, "detector": "fixed"}


def event(**fields):
    return ScanEvent(**{**BASE, **fields})


GUARD_FAILED = event(label="unknown", score=0.0, refused=False, stage="guard", error="detector fixed failed: RuntimeError", action="failed")
NOT_RUN = event(label="unknown", score=0.0, refused=False, signal="not_run", provider="mistral", stage="guard", action="failed", attempt=2)
BLOCKED = event(signal="blocked", provider="azure", category="hate", stage="input", score=1.0, detector="provider")
FLAGGED = event(label="compliance", score=0.1, refused=False, signal="flagged", provider="openai", stage="output", action="answered")
RETRIED = event(label="compliance", score=0.1, refused=False, attempt=2, action="answered", model="gpt-5", route="search", latency=0.02)


class Telemetry:
    """A real SDK that keeps in memory what it would send."""

    def __init__(self):
        self.logs, self.spans, self.reader = InMemoryLogRecordExporter(), InMemorySpanExporter(), InMemoryMetricReader()
        self.logger_provider, self.meter_provider, tracers = LoggerProvider(), MeterProvider([self.reader]), TracerProvider()
        self.logger_provider.add_log_record_processor(SimpleLogRecordProcessor(self.logs))
        tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.tracer = tracers.get_tracer("app")

    def hook(self, **more):
        return OpenTelemetryHook(logger_provider=self.logger_provider, meter_provider=self.meter_provider, **more)

    def records(self):
        return [finished.log_record for finished in self.logs.get_finished_logs()]

    def metrics(self):
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def values(self, name):
        points = self.metrics()[name].data.data_points
        return {tuple(sorted(point.attributes.items())): getattr(point, "value", None) or point.count for point in points}


@pytest.fixture
def telemetry():
    running = Telemetry()
    yield running
    running.logger_provider.shutdown()
    running.meter_provider.shutdown()


@pytest.fixture
def registry():
    return prometheus_client.CollectorRegistry()


def sample(registry, name, **labels):
    return registry.get_sample_value(name, labels)


def scans(model="unknown", route="unknown", verdict="refusal", signal="none", action="scanned"):
    return {"model": model, "route": route, "verdict": verdict, "signal": signal, "action": action}


def test_a_log_record_holds_the_event(caplog):
    caplog.set_level(logging.INFO)
    LoggingHook()(event(reason=Reason.CANNOT, model="gpt-5"))
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("refusal_guard.events", "WARNING")
    assert record.getMessage() == "refusal (score 0.900), scanned"
    assert record.refusal_guard["reason"] == "cannot"
    assert record.refusal_guard["model"] == "gpt-5"
    assert "route" not in record.refusal_guard
    assert json.loads(json.dumps(record.refusal_guard)) == record.refusal_guard


@pytest.mark.parametrize(
    ("told", "level"), [(event(), "WARNING"), (RETRIED, "INFO"), (FLAGGED, "INFO"), (NOT_RUN, "WARNING"), (GUARD_FAILED, "WARNING")]
)
def test_refusals_and_what_was_not_checked_are_warnings(caplog, told, level):
    caplog.set_level(logging.INFO)
    LoggingHook()(told)
    assert [record.levelname for record in caplog.records] == [level]


def test_a_logger_of_the_app_is_taken(caplog):
    LoggingHook(logging.getLogger("app.refusals"))(event())
    assert [record.name for record in caplog.records] == ["app.refusals"]


def test_prometheus_counts_under_the_names_that_rules_use(registry):
    hook = PrometheusHook(registry)
    for told in (event(), event(), RETRIED, BLOCKED, FLAGGED, NOT_RUN, GUARD_FAILED):
        hook(told)
    name = "refusal_guard_scans_total"
    assert sample(registry, name, **scans()) == 2
    assert sample(registry, name, **scans("gpt-5", "search", "compliance", action="answered")) == 1
    assert sample(registry, name, **scans(signal="blocked")) == 1
    assert sample(registry, name, **scans(verdict="unknown", signal="not_run", action="failed")) == 1
    assert sample(registry, "refusal_guard_score_count") == 4  # not what the provider decided, nor what was not judged
    assert sample(registry, "refusal_guard_scan_duration_seconds_count") == 7
    assert sample(registry, "refusal_guard_scan_duration_seconds_sum") == pytest.approx(0.02)
    assert [sample(registry, "refusal_guard_moderation_total", outcome=o) for o in ("flagged", "blocked", "error")] == [1, 1, 1]
    assert [sample(registry, "refusal_guard_retries_total", outcome=o) for o in ("answered", "refused", "failed")] == [1, 0, 1]
    assert sample(registry, "refusal_guard_scanner_errors_total") == 1


def test_a_refused_retry_is_counted_as_such(registry, telemetry):
    PrometheusHook(registry)(event(attempt=3, action="raised"))
    telemetry.hook()(event(attempt=3, action="raised"))
    assert sample(registry, "refusal_guard_retries_total", outcome="refused") == 1
    assert telemetry.values("refusal_guard.retries") == {(("outcome", "refused"),): 1}


def test_outcomes_are_there_before_the_first_one(registry):
    PrometheusHook(registry)
    assert sample(registry, "refusal_guard_moderation_total", outcome="blocked") == 0
    assert sample(registry, "refusal_guard_scanner_errors_total") == 0


def test_a_second_hook_for_a_registry_says_to_share_the_first(registry):
    PrometheusHook(registry)
    with pytest.raises(InputError, match="give that one to all guards"):
        PrometheusHook(registry)


def test_10_000_models_and_routes_do_not_grow_the_metrics(registry, telemetry):
    hooks = PrometheusHook(registry, max_values=20), telemetry.hook(max_values=20)
    for number in range(10_000):
        for hook in hooks:
            hook(event(model=f"model-{number}", route=f"route-{number}"))
    assert len(prometheus_client.generate_latest(registry).splitlines()) < 200
    assert sample(registry, "refusal_guard_scans_total", **scans("other", "other")) == 9_980
    assert len(telemetry.values("refusal_guard.scans")) == 21


@pytest.mark.parametrize(
    ("value", "label"),
    [(None, "unknown"), ("", "unknown"), ("  ", "unknown"), (7, "7"), (b"x", "b'x'"), ("a\ud800", "a?"), ("x" * 200, "x" * 120)],
)
def test_labels_that_are_missing_or_no_strings_are_dealt_with(registry, value, label):
    hook = PrometheusHook(registry)
    hook(event().model_copy(update={"model": value, "route": value}))
    assert sample(registry, "refusal_guard_scans_total", **scans(label, label)) == 1
    assert prometheus_client.generate_latest(registry)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "9", None])
def test_a_bound_that_is_none_is_refused(registry, limit):
    with pytest.raises(InputError, match="at least 1"):
        PrometheusHook(registry, max_values=limit)


@given(st.lists(st.one_of(st.none(), st.text(), st.integers(), st.binary()), max_size=60), st.integers(1, 5))
@settings(max_examples=50)
def test_a_label_has_so_many_values_and_two_more(values, limit):
    bounded = BoundedValues(limit)
    made = [bounded(value) for value in values]
    assert len(set(made) - {"other", "unknown"}) <= limit
    assert all(label and label.encode() and len(label) <= 120 for label in made)
    again = [bounded(value) for value in values]
    assert all(first == later for first, later in zip(made, again, strict=True) if first != "other")


def test_64_threads_are_counted_exactly(registry, telemetry):
    guard = Guard(FixedDetector(0.9), hooks=[PrometheusHook(registry), telemetry.hook()])

    def scan(number):
        with tagged(model=f"model-{number % 4}"):
            for _ in range(50):
                guard.scan("", "No.")

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(scan, range(64)))
    assert guard.events.flush(60)
    for number in range(4):
        labels = scans(f"model-{number}")
        assert sample(registry, "refusal_guard_scans_total", **labels) == 16 * 50
        assert telemetry.values("refusal_guard.scans")[tuple(sorted(labels.items()))] == 16 * 50
    assert len(telemetry.records()) == 64 * 50


def test_guards_share_a_hook_from_many_threads(registry):
    hook = PrometheusHook(registry, max_values=3)
    start = threading.Barrier(16)

    def count(number):
        start.wait()
        for _ in range(200):
            hook(event(model=f"model-{number}"))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(count, range(16)))
    models = {s.labels["model"] for metric in registry.collect() for s in metric.samples if s.name == "refusal_guard_scans_total"}
    assert len(models) == 4
    assert "other" in models


def test_the_event_is_that_of_the_conventions(telemetry):
    telemetry.hook()(event(reason=Reason.SHOULD_NOT, model="gpt-5", conversation_id="c-1", route="search", action="flagged"))
    (record,) = telemetry.records()
    assert record.event_name == "gen_ai.evaluation.result"
    assert record.timestamp == 1_700_000_000_250_000_000
    assert record.severity_number == SeverityNumber.WARN
    assert record.body is None
    assert dict(record.attributes) == {
        "gen_ai.evaluation.name": "refusal",
        "gen_ai.evaluation.score.value": 0.9,
        "gen_ai.evaluation.score.label": "refusal",
        "gen_ai.evaluation.explanation": "should_not",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.conversation.id": "c-1",
        "refusal_guard.label": "refusal",
        "refusal_guard.threshold": 0.5,
        "refusal_guard.refused": True,
        "refusal_guard.detector": "fixed",
        "refusal_guard.stage": "output",
        "refusal_guard.route": "search",
        "refusal_guard.attempt": 1,
        "refusal_guard.action": "flagged",
        "refusal_guard.latency": 0.0,
    }


@pytest.mark.parametrize(
    ("told", "label", "error_type", "provider"),
    [
        (RETRIED, "no_refusal", None, None),
        (BLOCKED, "refusal", None, "azure.ai.openai"),
        (NOT_RUN, None, "moderation_not_run", "mistral_ai"),
        (GUARD_FAILED, None, "guard_not_run", None),
        (event(label="unknown", score=0.0, refused=False, signal="empty"), None, None, None),
    ],
    ids=["answered", "blocked", "not run", "failed", "empty"],
)
def test_what_was_not_judged_has_no_score_and_what_did_not_run_an_error(telemetry, told, label, error_type, provider):
    telemetry.hook()(told)
    attributes = telemetry.records()[0].attributes
    assert attributes.get("gen_ai.evaluation.score.label") == label
    assert ("gen_ai.evaluation.score.value" in attributes) == (label is not None)
    assert attributes.get("error.type") == error_type
    assert attributes.get("gen_ai.provider.name") == provider


def test_the_event_belongs_to_the_span_of_the_call(telemetry):
    guard = Guard(FixedDetector(0.9), hooks=[telemetry.hook()])
    spans = []
    for _ in range(3):
        with telemetry.tracer.start_as_current_span("chat") as span:
            guard.scan("", "No.")
            spans.append(span.get_span_context())
    guard.scan("", "No.")
    assert guard.events.flush(20)
    told = [(record.trace_id, record.span_id) for record in telemetry.records()]
    nobody = trace.INVALID_SPAN_CONTEXT
    assert told == [(span.trace_id, span.span_id) for span in [*spans, nobody]]


def test_otel_metrics_are_those_of_prometheus(telemetry):
    hook = telemetry.hook()
    for told in (event(), RETRIED, BLOCKED, FLAGGED, NOT_RUN, GUARD_FAILED):
        hook(told)
    assert set(telemetry.metrics()) == {
        "refusal_guard.scans",
        "refusal_guard.score",
        "refusal_guard.scan.duration",
        "refusal_guard.retries",
        "refusal_guard.moderation",
        "refusal_guard.scanner_errors",
    }
    labels = scans("gpt-5", "search", "compliance", action="answered")
    assert telemetry.values("refusal_guard.scans")[tuple(sorted(labels.items()))] == 1
    assert telemetry.values("refusal_guard.moderation") == {(("outcome", o),): 1 for o in ("flagged", "blocked", "error")}
    assert telemetry.values("refusal_guard.retries") == {(("outcome", o),): 1 for o in ("answered", "failed")}
    assert telemetry.values("refusal_guard.score") == {(): 3}
    assert telemetry.values("refusal_guard.scan.duration") == {(): 6}
    assert telemetry.values("refusal_guard.scanner_errors") == {(): 1}
    assert telemetry.metrics()["refusal_guard.scan.duration"].unit == "s"


def test_without_an_sdk_the_hook_does_nothing():
    code = """
from refusal_guard.events.otel import OpenTelemetryHook
from refusal_guard import Guard
from refusal_guard.testing import FixedDetector
guard = Guard(FixedDetector(0.9), hooks=[OpenTelemetryHook()])
guard.scan("", "No.")
print(guard.events.flush(20), guard.events.failures)
"""
    assert run_python(code) == ["True", "(0,)"]


@pytest.mark.parametrize(
    ("module", "package", "extra"), [("prometheus", "prometheus_client", "prometheus"), ("otel", "opentelemetry", "otel")]
)
def test_a_missing_library_names_its_extra(module, package, extra):
    code = f"""
import sys
sys.modules[{package!r}] = None
from refusal_guard.errors import MissingExtraError
try:
    import refusal_guard.events.{module}
except MissingExtraError as error:
    print(error.extra)
"""
    assert run_python(code) == [extra]


def judge_canaries(hooks, **settings):
    """Scan, run, block, fail, all with the canary in what could be quoted."""

    def fails(conversation):
        raise RuntimeError(conversation.response)

    def blocked():
        raise type("BadRequestError", (Exception,), {"status_code": 400, "body": {"code": "content_filter", "message": CANARY}})(CANARY)

    def raising(event):
        raise ValueError(f"{CANARY} {event}")

    guard = Guard(FixedDetector(0.9), hooks=[*hooks, raising], **settings)
    guard.scan(f"prompt {CANARY}", f"response {CANARY}")
    guard.run(lambda: {"choices": [{"message": {"role": "assistant", "refusal": CANARY}}]}, prompt=CANARY)
    with pytest.raises(Exception, match=CANARY):
        guard.run(blocked, prompt=CANARY)
    broken = Guard(FixedDetector(fails), hooks=hooks, **settings)
    with pytest.raises(DetectorError):
        broken.scan(CANARY, CANARY)
    assert guard.events.flush(20)
    assert broken.events.flush(20)


def test_no_text_appears_anywhere_by_default(registry, telemetry, caplog):
    caplog.set_level(logging.DEBUG)
    recording = RecordingHook()
    with telemetry.tracer.start_as_current_span("chat"):
        judge_canaries([LoggingHook(), PrometheusHook(registry), telemetry.hook(), recording])
    assert len(recording.events) == len(telemetry.records()) == 4
    logged = [(record.getMessage(), vars(record)) for record in caplog.records]
    metrics = [prometheus_client.generate_latest(registry).decode(), repr(telemetry.metrics())]
    exported = [record.to_json() if hasattr(record, "to_json") else repr(vars(record)) for record in telemetry.records()]
    spans = [span.to_json() for span in telemetry.spans.get_finished_spans()]
    assert all((logged, metrics, exported, spans))
    assert CANARY not in repr([logged, metrics, exported, spans, recording.events])
    assert CANARY not in "".join(told.model_dump_json() for told in recording.events)


def test_text_that_was_asked_for_is_in_logs_and_events_and_in_no_metric(registry, telemetry, caplog):
    with telemetry.tracer.start_as_current_span("chat"):
        judge_canaries([LoggingHook(), PrometheusHook(registry), telemetry.hook()], include_text=True)
    # Two guards tell, each in a thread of its own: whose event comes first is open.
    assert f"response {CANARY}" in [record.refusal_guard.get("response") for record in caplog.records if hasattr(record, "refusal_guard")]
    assert f"prompt {CANARY}" in [record.attributes.get("refusal_guard.prompt") for record in telemetry.records()]
    assert CANARY not in prometheus_client.generate_latest(registry).decode() + repr(telemetry.metrics())


@pytest.mark.parametrize("label", list(Label))
def test_every_label_is_a_verdict(registry, label):
    PrometheusHook(registry)(event(label=label))
    assert sample(registry, "refusal_guard_scans_total", **scans(verdict=label.value)) == 1
