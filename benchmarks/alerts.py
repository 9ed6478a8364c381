"""Measures the default alert rule on seeded traffic: false alarms a day, and the delay until an alert when refusals jump.

Beside what was simulated stands the closed form: the binomial tail P(X >= rate * n) of one window of n samples (Feller, An Introduction to
Probability Theory I, VI.2), and for the delay the time after which a window that fills at a constant pace reaches the threshold.
Overlapping windows are tested again and again, so a day's false alarms lie above the tail of its disjoint windows (the scan statistic:
Naus 1982, JASA 77, 177-183).
"""

from __future__ import annotations

import math
import random
import statistics
from pathlib import Path

from refusal_guard import ScanEvent
from refusal_guard.alerts import DEFAULT_RULES, Alert, Alerts, Limits, Rule

RESULTS = Path(__file__).parent / "results" / "alerts.json"
DAY, HOUR = 86_400.0, 3_600.0
CALLS_A_MINUTE = (1, 10, 60, 600)
TRUE_RATES = (0.02, 0.05)
JUMPS = (0.2, 0.5)
DEFAULT = next(rule for rule in DEFAULT_RULES if rule.name == "refusals")
CONSIDERED = {"default": {}} | {
    f"{samples} samples, {rate:.0%}": {"min_samples": samples, "rate": rate} for samples in (10, 30, 50, 100) for rate in (0.15, 0.2)
}


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
            self.now = until
            self._alerts(EVENTS[self._random.random() < refusal_rate])
            calls += 1
            if until_alert and self._alerts.open:
                return calls
        self.now = end
        return calls

    def raised(self) -> list[Alert]:
        """Return the alerts raised so far."""
        self._alerts.flush()
        return [alert for alert in self.notices if alert.state == "raised"]

    @property
    def alerting(self) -> bool:
        return bool(self._alerts.open)


def binomial_tail(n: int, least: int, p: float) -> float:
    """Return P(X >= least) of a binomial X."""
    return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(least, n + 1))


def false_alarms(rule: Rule, calls_a_minute: float, refusal_rate: float, calls: int) -> dict[str, float]:
    """Return the alarms a day that traffic of a constant refusal rate raises, and the tail of one window."""
    days = max(1.0, round(calls / (calls_a_minute * 1_440)))
    traffic = Traffic(rule, calls_a_minute, seed=1)
    traffic.run(days * DAY, refusal_rate)
    in_window = calls_a_minute * rule.window / 60
    samples = max(rule.min_samples, round(in_window))
    tail = binomial_tail(samples, math.ceil(rule.rate * samples - 1e-9), refusal_rate) if samples <= 1_000 else 0.0
    disjoint = DAY / (samples / calls_a_minute * 60)
    return {
        "days": days,
        "alarms": len(traffic.raised()),
        "a_day": len(traffic.raised()) / days,
        "window_tail": tail,
        "disjoint_windows_a_day": tail * disjoint,
    }


def delay(rule: Rule, calls_a_minute: float, before: float, after: float, trials: int) -> dict[str, float | None]:
    """Return the seconds and calls from a jump of the refusal rate to the alert; trials without one within an hour count as endless."""
    seconds, calls = [], []
    for seed in range(trials):
        traffic = Traffic(rule, calls_a_minute, seed)
        traffic.run(max(2 * rule.window, 2 * rule.min_samples / calls_a_minute * 60), before)
        if traffic.alerting:
            continue
        jump = traffic.now
        taken = traffic.run(HOUR, after, until_alert=True)
        seconds.append(traffic.now - jump if traffic.alerting else math.inf)
        calls.append(taken)
    span = max(rule.window, rule.min_samples / calls_a_minute * 60)
    share = (rule.rate - before) / (after - before)
    return {
        "median_seconds": statistics.median(seconds),
        "p90_seconds": statistics.quantiles(seconds, n=10)[-1],
        "median_calls": statistics.median(calls),
        "alerted": sum(map(math.isfinite, seconds)) / len(seconds),
        "closed_form_seconds": span * share if share <= 1 else None,
    }
