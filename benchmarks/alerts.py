"""Measures the default alert rule on seeded traffic: false alarms a day, and the delay until an alert when refusals jump.

Beside what was simulated stands the closed form: the binomial tail P(X >= rate * n) of one window of n samples (Feller, An Introduction to
Probability Theory I, VI.2), and for the delay the time after which a window that fills at a constant pace reaches the threshold.
Overlapping windows are tested again and again, so a day's false alarms lie above the tail of its disjoint windows (the scan statistic:
Naus 1982, JASA 77, 177-183).
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import random
import statistics
from pathlib import Path
from typing import Any

from refusal_guard import ScanEvent
from refusal_guard.alerts import DEFAULT_RULES, Alert, Alerts, Limits, Rule

RESULTS = Path(__file__).parent / "results" / "alerts.json"
DAY = 86_400.0
CALLS_A_MINUTE = (1, 10, 60, 600)
TRUE_RATES = (0.02, 0.05)
JUMPS = (0.2, 0.5)
DEFAULT = next(rule for rule in DEFAULT_RULES if rule.name == "refusals")
CONSIDERED_AT = 5  # calls a minute: few enough that min_samples decides
MIN_SAMPLES = (10, 30, 50, 80, 100)  # considered for the default


def event(refused: bool) -> ScanEvent:
    label, score = ("refusal", 0.9) if refused else ("compliance", 0.1)
    return ScanEvent(time=0.0, label=label, score=score, threshold=0.5, refused=refused, detector="simulated", model="m", route="r")


EVENTS = {refused: event(refused) for refused in (False, True)}


class Traffic:
    """Poisson arrivals on a clock of their own, refused at a rate, watched by one rule."""

    def __init__(self, rule: Rule, calls_a_minute: float, seed: int) -> None:
        self.now, self.notices = 0.0, list[Alert]()
        self._random, self._pace = random.Random(seed), calls_a_minute / 60
        self._alerts = Alerts([rule], [self.notices.append], limits=Limits(max_per_hour=1_000_000), clock=lambda: self.now)

    def run(self, seconds: float, refusal_rate: float, *, until_alert: bool = False) -> int:
        """Let time pass; returns how many calls there were. `until_alert` stops at the first alert."""
        end, calls = self.now + seconds, 0
        while (until := self.now + self._random.expovariate(self._pace)) < end:
            self.now, refused = until, self._random.random() < refusal_rate
            self._alerts(EVENTS[refused])
            calls += 1
            if until_alert and refused and self._alerts.open:
                return calls
        self.now = end
        return calls

    def raised(self) -> int:
        """Return how many alerts were raised so far."""
        self._alerts.flush()
        return sum(alert.state == "raised" for alert in self.notices)


def binomial_tail(n: int, least: int, p: float) -> float:
    """Return P(X >= least) of a binomial X."""
    return sum(math.exp(_log_choose(n, k) + k * math.log(p) + (n - k) * math.log1p(-p)) for k in range(least, n + 1))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def false_alarms(rule: Rule, calls_a_minute: float, refusal_rate: float, calls: int) -> dict[str, Any]:
    """Return the alarms a day that traffic of a constant refusal rate raises, and the binomial tail of a window and of a day's windows."""
    days = math.ceil(calls / (calls_a_minute * 1_440))
    traffic = Traffic(rule, calls_a_minute, seed=1)
    traffic.run(days * DAY, refusal_rate)
    samples = max(rule.min_samples, round(calls_a_minute * rule.window / 60))
    tail = binomial_tail(samples, math.ceil(rule.rate * samples - 1e-9), refusal_rate)
    alarms = traffic.raised()
    figures = {"days": days, "alarms": alarms, "a_day": alarms / days, "window_samples": samples, "window_tail": tail}
    return setting(calls_a_minute, refusal_rate) | figures | {"closed_form_a_day": tail * calls_a_minute * 1_440 / samples}


def delay(rule: Rule, calls_a_minute: float, after: float, trials: int) -> dict[str, Any]:
    """Return the seconds and calls from a jump of the refusal rate, up from 2 %, to the alert; none within a day is None."""
    before, seconds, calls = TRUE_RATES[0], list[float](), list[float]()
    span = max(rule.window, rule.min_samples / calls_a_minute * 60)
    for seed in range(trials):
        traffic = Traffic(rule, calls_a_minute, seed)
        traffic.run(1.5 * span, before)
        jump = traffic.now
        asked = traffic.run(DAY, after, until_alert=True)
        seconds.append(traffic.now - jump if traffic.now < jump + DAY else math.inf)
        calls.append(asked)
    share = (rule.rate - before) / (after - before)
    median, p90 = statistics.median(seconds), statistics.quantiles(seconds, n=10)[-1]
    figures = {"trials": trials, "median_seconds": _finite(median), "p90_seconds": _finite(p90)}
    return setting(calls_a_minute, after) | figures | {"median_calls": statistics.median(calls), "closed_form_seconds": span * share}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def setting(calls_a_minute: float, refusal_rate: float) -> dict[str, float]:
    return {"calls_a_minute": calls_a_minute, "refusal_rate": refusal_rate}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--calls", type=int, default=300_000, help="calls for each figure of false alarms")
    options.add_argument("--trials", type=int, default=60, help="jumps for each delay")
    options.add_argument("--out", type=Path, default=RESULTS)
    chosen = options.parse_args()
    logging.getLogger("refusal_guard.alerts").setLevel(logging.ERROR)
    considered = [DEFAULT.model_copy(update={"min_samples": samples}) for samples in MIN_SAMPLES]
    result = {
        "rule": DEFAULT.model_dump(mode="json", exclude_none=True),
        "false_alarms": [false_alarms(DEFAULT, pace, rate, chosen.calls) for pace in CALLS_A_MINUTE for rate in TRUE_RATES],
        "delays": [delay(DEFAULT, pace, rate, chosen.trials) for pace in CALLS_A_MINUTE for rate in JUMPS],
        "considered": [
            {
                "min_samples": rule.min_samples,
                "false_alarms": false_alarms(rule, CONSIDERED_AT, TRUE_RATES[-1], chosen.calls),
                "delay": delay(rule, CONSIDERED_AT, JUMPS[-1], chosen.trials),
            }
            for rule in considered
        ],
    }
    chosen.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
