"""Test doubles, for your tests and for ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .conversation import Conversation
from .verdict import Detection


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
