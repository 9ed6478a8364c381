"""The labels of metrics: few enough values, whatever models and routes there are."""

from __future__ import annotations

from ..errors import InputError
from ..forks import ForkLock
from .event import ScanEvent, encodable

LABELS = ("model", "route", "verdict", "signal", "action")
MAX_VALUES = 100
# Score and seconds; a scan takes milliseconds, a classifier behind an endpoint seconds.
SCORE_BUCKETS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
SECONDS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MISSING, _OTHER, _NO_SIGNAL = "unknown", "other", "none"
_LONGEST = 120


class BoundedValues:
    """Keeps the values of one label few: what comes after the first `limit` different ones is "other"; a missing one is "unknown"."""

    def __init__(self, limit: int = MAX_VALUES) -> None:
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise InputError("a label needs room for at least 1 value")
        self._limit, self._known, self._lock = limit, set[str](), ForkLock()

    def __call__(self, value: object) -> str:
        """Return the value to use, a text of 120 characters at most."""
        text = "" if value is None else encodable(str(value)[:_LONGEST]).strip()
        if not text or text in self._known:
            return text or _MISSING
        with self._lock:
            if len(self._known) >= self._limit and text not in self._known:
                return _OTHER
            self._known.add(text)
            return text


class ScanLabels:
    """Makes the labels of an event; model and route, which are open, have at most `max_values` values each."""

    def __init__(self, max_values: int = MAX_VALUES) -> None:
        self._model, self._route = BoundedValues(max_values), BoundedValues(max_values)

    def __call__(self, event: ScanEvent) -> dict[str, str]:
        """Return the value of each of LABELS."""
        verdict, signal, action = str(event.label), event.signal or _NO_SIGNAL, event.action
        return dict(zip(LABELS, (self._model(event.model), self._route(event.route), verdict, signal, action), strict=True))
