"""Episodes: from the first hit of a rule's key to the notice that it is over."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..events import ScanEvent
from .alert import Alert
from .rules import OTHER, Rule, Seen, Trigger, label_of
from .window import Window

HOUR = 3_600.0
_LATEST = 20  # hits that are remembered for the causes and conversations of an alert
_MOST_CAUSES, _MOST_CONVERSATIONS = 5, 3
_SWEEP_SECONDS = 60.0
_LOGGER = logging.getLogger("refusal_guard.alerts")


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time: `seconds` on the steady clock of the windows, `time` on the wall."""

    seconds: float
    time: float


class Budget:
    """How many alerts may be raised in an hour; `held_back` counts those that were not, or not yet."""

    def __init__(self, most: int) -> None:
        self._raised: deque[float] = deque(maxlen=most)
        self.held_back = 0

    def spend(self, now: float) -> bool:
        """Take one, if there is one left."""
        if len(self._raised) == self._raised.maxlen and now - self._raised[0] < HOUR:
            return False
        self._raised.append(now)
        return True


class _Hit(NamedTuple):
    cause: str
    conversation_id: str | None


@dataclass(slots=True)
class _Track:
    """What is known of one key."""

    labels: dict[str, str]
    window: Window
    run: int = 0
    latest: deque[_Hit] = field(default_factory=lambda: deque(maxlen=_LATEST))
    open: Alert | None = None
    rate_threshold: float = 0.0  # when it was raised: the baseline moves on
    raised_at: float | None = None
    held_back: bool = False


class Watch:
    """One rule at work on the events of all its keys. Not for several threads at once.

    At most `max_keys` keys are told apart; those that come later share the labels "other", until others have been silent for long enough.
    """

    def __init__(self, rule: Rule, budget: Budget, max_keys: int) -> None:
        self.rule = rule
        self._budget, self._max_keys = budget, max_keys
        self._tracks: dict[tuple[str, ...], _Track] = {}
        self._swept = -_SWEEP_SECONDS

    @property
    def open(self) -> list[Alert]:
        """The alerts that are raised and not resolved."""
        return [track.open for track in self._tracks.values() if track.open is not None]

    def take(self, event: ScanEvent, now: Moment) -> Iterator[Alert]:
        """Count an event; yields the notice it leads to, if any."""
        if not self.rule.counts(event):
            return
        track, hit = self._track(event, now.seconds), self.rule.hit(event)
        track.window.add(now.seconds, hit)
        track.run = track.run + 1 if hit else 0
        if hit:
            track.latest.appendleft(_Hit(cause_of(event), event.conversation_id))
        if track.open is not None:
            yield from self._resolve(track, now)
        elif hit:  # without one, nothing has got worse
            yield from self._raise(track, now)

    def tick(self, now: Moment) -> Iterator[Alert]:
        """Yield the notices to which the mere passing of time leads."""
        for track in self._tracks.values():
            yield from self._resolve(track, now)

    def _raise(self, track: _Track, now: Moment) -> Iterator[Alert]:
        seen = self.rule.seen(track.window, track.run, now.seconds)
        trigger = self.rule.trigger(seen)
        if trigger is None:
            return
        if self._cooling(track, now.seconds) or not self._budget.spend(now.seconds):
            self._hold_back(track)
        else:
            track.rate_threshold = self.rule.rate_threshold(seen.baseline)
            track.open, track.raised_at, track.held_back = self._alert(track, seen, trigger, now), now.seconds, False
            yield track.open

    def _resolve(self, track: _Track, now: Moment) -> Iterator[Alert]:
        if track.open is None:
            return
        seen = self.rule.seen(track.window, track.run, now.seconds)
        if self.rule.over(seen, track.rate_threshold):
            yield track.open.model_copy(update=self._facts(track, seen, now) | {"state": "resolved"})
            track.open = None

    def _cooling(self, track: _Track, now: float) -> bool:
        return track.raised_at is not None and now - track.raised_at < self.rule.cooldown

    def _hold_back(self, track: _Track) -> None:
        """Count and log an alert that is not raised now; it is when it may be and there is still a reason."""
        if not track.held_back:
            track.held_back = True
            self._budget.held_back += 1
            _LOGGER.warning("alert %s is held back by its cooldown or max_per_hour", key_of(self.rule, track.labels))

    def _alert(self, track: _Track, seen: Seen, trigger: Trigger, now: Moment) -> Alert:
        key = key_of(self.rule, track.labels)
        thresholds = {"rate": track.rate_threshold, "count": self.rule.count or 0, "consecutive": self.rule.consecutive or 0}
        return Alert(
            id=hashlib.sha256(f"{key}|{now.time!r}".encode()).hexdigest()[:16],
            key=key,
            state="raised",
            rule=self.rule.name,
            kind=self.rule.kind,
            labels=track.labels,
            trigger=trigger,
            threshold=thresholds[trigger],
            baseline=seen.baseline.rate if self.rule.times_baseline is not None and seen.baseline.samples else None,
            since=now.time,
            **self._facts(track, seen, now),
        )

    def _facts(self, track: _Track, seen: Seen, now: Moment) -> dict[str, Any]:
        """Return what was seen of a key, as fields of an alert."""
        recent = seen.recent
        causes = Counter(hit.cause for hit in track.latest)
        ids = dict.fromkeys(hit.conversation_id for hit in track.latest if hit.conversation_id)
        return {
            "time": now.time,
            "samples": recent.samples,
            "hits": recent.hits,
            "rate": recent.rate,
            "seconds": recent.seconds,
            "causes": dict(causes.most_common(_MOST_CAUSES)),
            "conversations": tuple(ids)[:_MOST_CONVERSATIONS],
        }

    def _track(self, event: ScanEvent, now: float) -> _Track:
        """Return the track of an event's key, a new one while there is room, or else that of all others."""
        key = self.rule.key(event)
        if key not in self._tracks and self._full(now):
            key = (OTHER,) * len(key)
        if key not in self._tracks:
            self._tracks[key] = _Track(dict(zip(self.rule.by, key, strict=True)), self.rule.new_window())
        return self._tracks[key]

    def _full(self, now: float) -> bool:
        """Return whether no further key can be told apart, after letting silent ones go (not at every event: that takes a while)."""
        if len(self._tracks) >= self._max_keys and now - self._swept >= _SWEEP_SECONDS:
            self._swept = now
            self._tracks = {key: track for key, track in self._tracks.items() if not self._silent(track, now)}
        return len(self._tracks) >= self._max_keys

    def _silent(self, track: _Track, now: float) -> bool:
        return track.open is None and not self._cooling(track, now) and track.window.empty(now)


def key_of(rule: Rule, labels: Mapping[str, str]) -> str:
    """Return what is the same in all alerts of a rule's key."""
    return "|".join([rule.name, *(f"{name}={value}" for name, value in labels.items())])


def cause_of(event: ScanEvent) -> str:
    """Return the little that tells why an event is a hit: what the provider declared, or else the reason or label of the verdict."""
    if event.error is not None:
        return "error"
    return event.signal or event.reason or event.label if event.category is None else label_of(event, "category")
