"""What events cost: how many a second the hooks take, whether memory stays flat, and what a scan pays for being told.

    python benchmarks/events.py [--events N] [--scans N] [--out FILE]

N events (1,000,000) go through a guard's queue to the hooks for logs and for Prometheus, and then a tenth of them to OpenTelemetry's SDK;
records are formatted (OpenTelemetry's as JSON) and written nowhere. The queue never overflows, so that every event is delivered; the sums
are checked. Then guards without and with hooks take turns at scanning with a detector that costs nothing. On a machine that others use,
too, the processor time of an event is the figure to trust. Needs the extras `prometheus` and `otel`, opentelemetry-sdk, and Linux (memory
is read from /proc).
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, ConsoleLogRecordExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from refusal_guard import Guard
from refusal_guard.events import Emitter, Hook, LoggingHook, tagged
from refusal_guard.events.otel import OpenTelemetryHook
from refusal_guard.events.prometheus import PrometheusHook
from refusal_guard.testing import FixedDetector
from refusal_guard.verdict import Label, Verdict

RESULTS = Path(__file__).parent / "results" / "events.json"
BURST = 5_000
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1024**2
VERDICTS = [
    Verdict(label=label, score=score, threshold=0.5, refused=score >= 0.5, detector="fixed")
    for label, score in ((Label.COMPLIANCE, 0.02), (Label.COMPLIANCE, 0.2), (Label.REFUSAL, 0.97))
]


def memory_mb() -> float:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_MB


def quiet_logger() -> logging.Logger:
    """Return a logger that formats every record and writes it nowhere."""
    logger = logging.getLogger("benchmark.events")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.FileHandler(os.devnull)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s %(refusal_guard)s"))
    logger.addHandler(handler)
    return logger


@contextmanager
def telemetry() -> Iterator[OpenTelemetryHook]:
    """Yield the hook with a real SDK that formats records and writes them nowhere."""
    with Path(os.devnull).open("w") as nowhere:
        logs = LoggerProvider()
        logs.add_log_record_processor(BatchLogRecordProcessor(ConsoleLogRecordExporter(out=nowhere)))
        yield OpenTelemetryHook(logger_provider=logs, meter_provider=MeterProvider([InMemoryMetricReader()]))
        logs.shutdown()


def through(hooks: Sequence[Hook], events: int) -> dict[str, Any]:
    """Send events to hooks as fast as they take them; memory is read after each burst."""
    emitter, memory = Emitter(hooks), []
    began, busy = time.perf_counter(), time.process_time()
    for number in range(0, events, BURST):
        with tagged(model=f"model-{number % 7}", conversation_id=str(number)):
            for offset in range(min(BURST, events - number)):
                emitter.emit(VERDICTS[offset % 3], latency=0.002)
        assert emitter.flush(600)
        memory.append(memory_mb())
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    assert emitter.close(600)
    assert (emitter.dropped, set(emitter.failures)) == (0, {0})
    return {
        "events": events,
        "events_per_second": events / seconds,
        "processor_us_per_event": busy / events * 1e6,
        "memory_mb": {"after_a_tenth": memory[len(memory) // 10], "at_the_end": memory[-1], "most": max(memory)},
    }


def overhead(hooks: dict[str, Sequence[Hook]], scans: int) -> dict[str, dict[str, float]]:
    """Return the microseconds that a scan takes, guards taking turns, a pause for the hooks between bursts."""
    guards = {name: Guard(FixedDetector(0.9), hooks=kind) for name, kind in hooks.items()}
    taken: dict[str, list[float]] = {name: [] for name in guards}
    for _ in range(max(1, scans // 20)):
        for name, guard in guards.items():
            taken[name] += _timed(lambda guard=guard: guard.scan("How do I boil eggs?", "I can't help with that."), 20)
            guard.events.flush(60)
    return {
        name: {"median_us": statistics.median(times) * 1e6, "p99_us": statistics.quantiles(times, n=100)[-1] * 1e6}
        for name, times in taken.items()
    }


def _timed(work: Callable[[], object], times: int) -> list[float]:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return taken


def blocked(scans: int) -> dict[str, float]:
    """Return what a scan takes while a hook hangs, and how many events were let go."""

    def hang(event: object) -> None:
        time.sleep(0.05)

    guard = Guard(FixedDetector(0.9), hooks=[hang])
    taken = _timed(lambda: guard.scan("How do I boil eggs?", "I can't help with that."), scans)
    return {"scans": scans, "median_us": statistics.median(taken) * 1e6, "dropped": guard.events.dropped}


def main() -> None:
    options = _options()
    registry = CollectorRegistry()
    prometheus, logs = PrometheusHook(registry), LoggingHook(quiet_logger())
    results: dict[str, Any] = {"through": {}}
    results["overhead"] = overhead(
        {"no hooks": [], "one that does nothing": [id], "logs and Prometheus": [logs, prometheus]}, options.scans
    )
    gc.collect()
    results["through"]["logs and Prometheus"] = through([logs, prometheus], options.events)
    with telemetry() as hook:
        results["through"]["OpenTelemetry"] = through([hook], max(options.events // 10, BURST))
    results["a_hook_that_hangs"] = blocked(options.scans)
    counted = sum(s.value for m in registry.collect() for s in m.samples if s.name == "refusal_guard_scans_total")
    results["counted_by_prometheus"] = int(counted)
    print(json.dumps(results, indent=2))
    options.out.write_text(json.dumps(results, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--scans", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
