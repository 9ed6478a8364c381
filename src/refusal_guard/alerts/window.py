"""Sliding windows: how many of the latest samples were hits."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

SLOTS = 30  # of a window: it moves on by a thirtieth of its length at a time


class Count(NamedTuple):
    """Hits among samples, and the seconds that these cover."""

    samples: int
    hits: int
    seconds: float

    @property
    def rate(self) -> float:
        """The share of hits; 0 where there are no samples."""
        return self.hits / self.samples if self.samples else 0.0


class Window:
    """Counts of samples and hits in slots of time, so that memory does not grow with traffic.

    A window covers the slot under way and those before it, in all `SLOTS`: between 29 and 30 thirtieths of `seconds`. Where that holds
    fewer than `least` samples it can reach back for them, slot by slot, over at most `longest` seconds. A `baseline` is that of as many
    seconds before. Nothing older is kept. Times must not go back (see `Elapsed`).
    """

    def __init__(self, seconds: float, *, least: int = 0, longest: float | None = None, baseline: float = 0.0) -> None:
        self._width, self._least = seconds / SLOTS, least
        self._longest = max(SLOTS, math.ceil((longest or seconds) / self._width - 1e-9))
        self._baseline = math.ceil(baseline / self._width - 1e-9)
        self._slots: deque[list[int]] = deque()  # [number, samples, hits], oldest first
        self._samples = 0

    def add(self, now: float, hit: bool) -> None:
        """Count one sample."""
        number = self._number(now)
        if not self._slots or self._slots[-1][0] < number:
            self._slots.append([number, 0, 0])
            self._forget(number)
        self._slots[-1][1] += 1
        self._slots[-1][2] += hit
        self._samples += 1

    def proper(self, now: float) -> Count:
        """Return what the window itself holds."""
        return self._count(now, 0)

    def recent(self, now: float) -> Count:
        """Return what the window holds as far as it reaches back."""
        return self._count(now, self._least)

    def _count(self, now: float, least: int) -> Count:
        current, counted = self._number(now), Count(0, 0, SLOTS * self._width)
        for number, samples, hits in reversed(self._slots):
            reach = max(SLOTS, current - number + 1)
            if reach > SLOTS and (counted.samples >= least or reach > self._longest):
                break
            counted = Count(counted.samples + samples, counted.hits + hits, reach * self._width)
        return counted

    def before(self, recent: Count, now: float) -> Count:
        """Return what the `baseline` seconds before the recent ones hold."""
        if not self._baseline:
            return Count(0, 0, 0.0)
        newest = self._number(now) - round(recent.seconds / self._width)
        slots = [slot for slot in self._slots if newest - self._baseline < slot[0] <= newest]
        return Count(sum(slot[1] for slot in slots), sum(slot[2] for slot in slots), self._baseline * self._width)

    def empty(self, now: float) -> bool:
        """Return whether everything counted is out of reach."""
        self._forget(self._number(now))
        return not self._slots

    def _number(self, now: float) -> int:
        return math.floor(now / self._width)

    def _forget(self, current: int) -> None:
        while self._slots and self._useless(current - self._slots[0][0]):
            self._samples -= self._slots.popleft()[1]

    def _useless(self, age: int) -> bool:
        """Return whether the oldest slot can't be reached any more: too old, or enough samples came after it."""
        if self._baseline or age < SLOTS:
            return age >= self._longest + self._baseline
        return age >= self._longest or self._samples - self._slots[0][1] >= self._least


class Elapsed:
    """Seconds that went by on a clock. Never goes back: where the clock does, no time went by, and it goes on from there."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._last, self._seconds = clock, clock(), 0.0

    def __call__(self) -> float:
        """Return the seconds since it was made."""
        now = self._clock()
        self._seconds += max(0.0, now - self._last)
        self._last = now
        return self._seconds
