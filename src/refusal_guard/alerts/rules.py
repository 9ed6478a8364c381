"""Rules: which events count, by which labels, and from when on somebody is told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..events import ScanEvent
from ..verdict import Label
from .window import Count, Window

Kind = Literal["refusals", "blocked_prompts", "flagged_prompts", "not_run"]
KeyLabel = Literal["model", "route", "provider", "category"]
Trigger = Literal["rate", "count", "consecutive"]
Seconds = Annotated[float, Field(ge=1.0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
OTHER, UNKNOWN = "other", "unknown"
_LONGEST_LABEL = 200
_MOST_WINDOWS = 100  # that a window may reach back, which bounds the slots it keeps
_OF_SIGNALS = frozenset({"provider", "category"})


class Seen(NamedTuple):
    """What a rule has seen of one key.

    `recent` is the window, as far back as a rate needs it, `hits` those of the window proper, `baseline` the time before it, and `run` how
    many of the latest samples in a row are hits.
    """

    recent: Count
    hits: int
    baseline: Count
    run: int


class Rule(BaseModel):
    """When to tell somebody, and when to say that it is over.

    Of what a rule is about (`kind`), some events are samples and some of these are hits; both are counted apart for each combination of
    the labels named in `by`. An alert is raised when any trigger holds: `rate`, `count` or `consecutive`; at least one is needed. A rule
    that could never fire, or a setting out of range, is a pydantic ValidationError (a ValueError) that names it.

    Attributes:
        name: Unique among the rules, part of every alert.
        kind: "refusals": refused among judged answers. "blocked_prompts": calls whose prompt a provider did not take, among all.
            "flagged_prompts": prompts that moderation marked and let pass, among all. "not_run": calls that went unguarded because the
            guard or the provider's moderation failed, among all.
        by: Labels whose combinations are counted apart; () counts all together. "provider" and "category" are known of hits alone, so
            they go with `count` only.
        only: Values of labels to which the rule keeps; events with others are no samples.
        window: Seconds that count.
        min_samples: Fewest samples of which a rate is taken, so that three refusals after a restart alarm nobody.
        max_window: For a rate, where the window holds fewer than `min_samples`, it reaches back for them, at most this many seconds.
        rate: Share of hits from which to alert.
        times_baseline: Alert by `rate` only where the rate is also this many times that of the `baseline` seconds before the window, of
            which as many samples are needed.
        baseline: Seconds before the window that make the baseline.
        count: Hits within the window from which to alert.
        consecutive: Hits in a row from which to alert.
        resolve: An alert is over when rate and count are below this share of their thresholds and the row is broken (hysteresis).
        cooldown: Seconds from one alert in which no other is raised by the same rule for the same labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w.-]+$")]
    kind: Kind
    by: tuple[KeyLabel, ...] = ("model", "route")
    only: Mapping[KeyLabel, Annotated[frozenset[str], Field(min_length=1)]] = {}
    window: Seconds = 300.0
    min_samples: Annotated[int, Field(ge=1)] = 80
    max_window: Seconds = 14_400.0
    rate: Share | None = None
    times_baseline: Annotated[float, Field(gt=1.0, allow_inf_nan=False)] | None = None
    baseline: Seconds = 3_600.0
    count: Annotated[int, Field(ge=1)] | None = None
    consecutive: Annotated[int, Field(ge=1)] | None = None
    resolve: Share = 0.8
    cooldown: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 900.0

    @model_validator(mode="after")
    def _can_fire(self) -> Self:
        if self.rate is None and self.count is None and self.consecutive is None:
            raise ValueError("it can never fire: set rate, count or consecutive")
        if self.rate is None and self.times_baseline is not None:
            raise ValueError("times_baseline needs a rate too: of a baseline of 0 any hit is a multiple")
        if not self.window <= self.max_window <= _MOST_WINDOWS * self.window or self.baseline > _MOST_WINDOWS * self.window:
            raise ValueError(f"max_window must be between window and {_MOST_WINDOWS} times window, and baseline at most so long")
        if len(set(self.by)) < len(self.by):
            raise ValueError("by names a label twice")
        if _OF_SIGNALS & {*self.by, *self.only} and (self.rate is not None or self.consecutive is not None):
            raise ValueError("provider and category are known of hits alone: with them every rate is 1; use count, or other labels")
        return self

    def counts(self, event: ScanEvent) -> bool:
        """Return whether an event is a sample."""
        if any(label_of(event, name) not in values for name, values in self.only.items()):
            return False
        return self.kind != "refusals" or _judged(event)

    def hit(self, event: ScanEvent) -> bool:
        """Return whether a sample is a hit."""
        match self.kind:
            case "refusals":
                return event.refused
            case "blocked_prompts":
                return event.signal == "blocked"
            case "flagged_prompts":
                return event.signal == "flagged" and event.stage == "input"
            case "not_run":
                return event.not_run

    def key(self, event: ScanEvent) -> tuple[str, ...]:
        """Return the values of the labels in `by`."""
        return tuple(label_of(event, name) for name in self.by)

    def new_window(self) -> Window:
        """Return an empty window for one key."""
        baseline = 0.0 if self.times_baseline is None else self.baseline
        least = 0 if self.rate is None else self.min_samples
        return Window(self.window, least=least, longest=self.max_window, baseline=baseline)

    def seen(self, window: Window, run: int, now: float) -> Seen:
        """Return what its triggers look at."""
        recent = window.recent(now)
        return Seen(recent, window.proper(now).hits, window.before(recent, now), run)

    def trigger(self, seen: Seen) -> Trigger | None:
        """Return which trigger holds."""
        if self.consecutive is not None and seen.run >= self.consecutive:
            return "consecutive"
        if self.count is not None and seen.hits >= self.count:
            return "count"
        enough = seen.recent.samples >= self.min_samples
        return "rate" if enough and seen.recent.rate >= self.rate_threshold(seen.baseline) else None

    def over(self, seen: Seen, rate_threshold: float) -> bool:
        """Return whether an alert is over that was raised at a threshold; so it is when nothing more comes."""
        if not seen.recent.samples:
            return True
        if self.consecutive is not None and seen.run:
            return False
        if self.count is not None and seen.hits >= self.resolve * self.count:
            return False
        return seen.recent.rate < self.resolve * rate_threshold

    def rate_threshold(self, baseline: Count) -> float:
        """Return the rate from which to alert: infinite where there is none, or where it hangs on a baseline that is not known yet."""
        if self.rate is None or (self.times_baseline is not None and baseline.samples < self.min_samples):
            return math.inf
        return max(self.rate, min(1.0, (self.times_baseline or 0.0) * baseline.rate))


def label_of(event: ScanEvent, name: KeyLabel) -> str:
    """Return an event's label as a short line of text; "unknown" where it is missing or nothing that a label can be."""
    value = getattr(event, name, None)
    return _line(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else UNKNOWN


@lru_cache
def _line(text: str) -> str:
    return "".join(filter(str.isprintable, text[:_LONGEST_LABEL])).strip() or UNKNOWN


def _judged(event: ScanEvent) -> bool:
    """Return whether an answer was judged: not an answer without text, a blocked prompt or a guard that did not run."""
    return event.label != Label.UNKNOWN and event.signal != "blocked" and event.error is None


DEFAULT_RULES = (
    Rule(name="refusals", kind="refusals", rate=0.2),
    Rule(name="blocked_prompts", kind="blocked_prompts", rate=0.2),
    Rule(name="flagged_prompts", kind="flagged_prompts", rate=0.2),
    Rule(name="not_run", kind="not_run", rate=0.1, consecutive=5),
)
