"""The guard: a detector, a threshold, and what to do when the detector fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args, overload

from .conversation import Conversation
from .detectors import Detector, load_detector
from .errors import DetectorError, InputError, RefusalGuardError
from .verdict import Detection, Label, Verdict

OnError = Literal["raise", "pass", "refuse"]
Scannable = Conversation | tuple[str | None, str | None] | Sequence[Mapping[str, Any]]
DEFAULT_THRESHOLD = 0.5
_PROVIDER = "provider"
_MISSING: Final = object()


class Guard:
    """Scores responses for refusal.

    `detector` is a name, a model folder or any detector object. `threshold` lies in (0, 1); without one the detector's own
    is taken, or 0.5. `on_error` says what happens when the detector fails: "raise" a DetectorError, "pass" the response, or
    "refuse" it; the verdict then carries the error. Raises InputError for a bad setting.

    One guard serves many threads.
    """

    def __init__(
        self, detector: str | Path | Detector = "embedded", *, threshold: float | None = None, on_error: OnError = "raise"
    ) -> None:
        if on_error not in get_args(OnError):
            raise InputError(f"on_error must be one of {', '.join(get_args(OnError))}")
        self.detector = load_detector(detector)
        self.on_error = on_error
        self.threshold = _checked(getattr(self.detector, "threshold", DEFAULT_THRESHOLD) if threshold is None else threshold)

    @overload
    def scan(self, prompt: str | None, response: str | None) -> Verdict: ...

    @overload
    def scan(self, prompt: Conversation | Sequence[Mapping[str, Any]], /) -> Verdict: ...

    def scan(self, prompt: Any, response: Any = _MISSING) -> Verdict:
        """Return the verdict on one response.

        Takes a prompt and a response, or a Conversation or a list of chat messages alone. Raises InputError for anything else and
        DetectorError when the detector fails (see `on_error`).
        """
        paired = prompt is None or isinstance(prompt, str | bytes)
        if paired and response is _MISSING:
            raise InputError("a prompt needs its response: scan(prompt, response)")
        if not paired and response is not _MISSING:
            raise InputError("a conversation holds its response already: pass it alone")
        return self.scan_many([(prompt, response) if paired else prompt])[0]

    def scan_many(self, items: Iterable[Scannable]) -> list[Verdict]:
        """Return the verdicts on many responses, in order.

        Each item is a Conversation, a (prompt, response) tuple or a list of chat messages.
        """
        conversations = [as_conversation(item) for item in items]
        verdicts = [self._settled(conversation) for conversation in conversations]
        open_ones = [i for i, verdict in enumerate(verdicts) if verdict is None]
        for i, verdict in zip(open_ones, self._judge([conversations[i] for i in open_ones]), strict=True):
            verdicts[i] = verdict
        return cast(list[Verdict], verdicts)

    def _settled(self, conversation: Conversation) -> Verdict | None:
        """Return the verdict that needs no detector: a declared refusal, or nothing to read."""
        if any(message.refusal is not None for message in conversation.answer):
            return self._verdict(Detection(score=1.0, detector=_PROVIDER, label=Label.REFUSAL), signal="refusal")
        if conversation.visible_response.strip():
            return None
        calls_tool = any(message.calls_tool for message in conversation.answer)
        return self._unknown(signal="tool_call" if calls_tool else "empty")

    def _judge(self, conversations: Sequence[Conversation]) -> list[Verdict]:
        if not conversations:
            return []
        try:
            detections = self._detect(conversations)
        except DetectorError as error:
            if self.on_error == "raise":
                raise
            if len(conversations) > 1:  # one that breaks the detector must not take its neighbours along
                return [verdict for conversation in conversations for verdict in self._judge([conversation])]
            return [self._unknown(refused=self.on_error == "refuse", error=str(error))]
        return [self._unknown() if detection is None else self._verdict(detection) for detection in detections]

    def _detect(self, conversations: Sequence[Conversation]) -> list[Detection | None]:
        name = self.detector.name
        try:
            detections = self.detector.detect(conversations)
        except RefusalGuardError:
            raise
        except Exception as error:
            raise DetectorError(f"detector {name} failed: {type(error).__name__}", detector=name) from error
        if len(detections) != len(conversations):
            raise DetectorError(f"detector {name} returned {len(detections)} answers for {len(conversations)}", detector=name)
        return detections

    def _verdict(self, detection: Detection, signal: str | None = None) -> Verdict:
        refused = detection.score >= self.threshold
        declined = detection.label if detection.label in (Label.REFUSAL, Label.PARTIAL) else Label.REFUSAL
        return Verdict(
            label=declined if refused else Label.COMPLIANCE,
            score=detection.score,
            threshold=self.threshold,
            refused=refused,
            detector=detection.detector,
            reason=detection.reason if refused else None,
            evidence=detection.evidence if refused else None,
            truncated=detection.truncated,
            signal=signal,
        )

    def _unknown(self, *, refused: bool = False, signal: str | None = None, error: str | None = None) -> Verdict:
        return Verdict(
            label=Label.UNKNOWN,
            score=0.0,
            threshold=self.threshold,
            refused=refused,
            detector=self.detector.name,
            signal=signal,
            error=error,
        )


def as_conversation(item: Scannable) -> Conversation:
    """Return the conversation of a pair, of chat messages, or the conversation itself."""
    if isinstance(item, Conversation):
        return item
    if isinstance(item, tuple) and len(item) == 2 and not isinstance(item[0], Mapping):
        return Conversation.from_pair(*item)
    return Conversation.from_messages(cast(Sequence[Mapping[str, Any]], item))


def _checked(threshold: object) -> float:
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0.0 < threshold < 1.0:
        raise InputError("the threshold must be a number between 0 and 1, both excluded")
    return float(threshold)
