"""Test doubles, for your tests and for ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .conversation import Conversation
from .events import ScanEvent, flush
from .verdict import Detection

_PATIENCE_SECONDS = 10.0


class FixedDetector:
    """A detector that answers what it is told, without a model.

    `answer` is a score for every conversation, None to abstain, or a function from a conversation to either; what the
    function raises, the detector raises. `seen` holds the conversations it was asked about.
    """

    name = "fixed"

    def __init__(self, answer: float | Callable[[Conversation], float | None] | None) -> None:
        self._answer = answer
        self.seen: list[Conversation] = []

    def detect(self, conversations: Sequence[Conversation]) -> list[Detection | None]:
        """Return the fixed answer for each conversation."""
        self.seen += conversations
        scores = [self._answer(conversation) if callable(self._answer) else self._answer for conversation in conversations]
        return [None if score is None else Detection(score=score, detector=self.name) for score in scores]


class RecordingHook:
    """A hook that keeps what it is told."""

    def __init__(self) -> None:
        self._events: list[ScanEvent] = []

    def __call__(self, event: ScanEvent) -> None:
        """Keep an event."""
        self._events.append(event)

    @property
    def events(self) -> list[ScanEvent]:
        """The events so far, in the order of their time; those that are on their way are waited for, ten seconds at most."""
        flush(_PATIENCE_SECONDS)
        self._events.sort(key=lambda event: event.time)
        return self._events
