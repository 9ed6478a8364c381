"""NoRefusal: LLM Guard's output scanner of that name, with the same arguments and results."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from pathlib import Path

from .conversation import Conversation
from .detectors import Detector
from .errors import InputError
from .events import Hook
from .guard import Guard
from .text import sentences
from .verdict import Verdict


class MatchType(Enum):
    """What is judged: the output as a whole, or each of its sentences alone."""

    SENTENCE = "sentence"
    FULL = "full"


class NoRefusal:
    """Drop-in for `llm_guard.output_scanners.NoRefusal`; works in `llm_guard.scan_output` without importing llm-guard.

    `threshold` lies in (0, 1); an output is invalid when its score, rounded to two decimals as LLM Guard does, is strictly
    above it. `match_type` is "full" or "sentence", as a string, as MatchType or as LLM Guard's own Enum. `detector` and `hooks` are
    what Guard takes; hooks get one event for each output. `use_onnx` changes nothing (the embedded model always runs on ONNX Runtime),
    and a `model` of LLM Guard's can't be loaded: both are here so that calls written for LLM Guard go through or say what to do.

    Not kept, being defects: a threshold of 0 divides by zero there and 1 never fires, so both are an InputError here; the risk score
    is never -0.0; None counts as empty. `scan_output` files results under the class name, so two scanners of one class hide each
    other: subclass to give one its own key (`class Strict(NoRefusal): ...`).
    """

    def __init__(
        self,
        *,
        model: object = None,
        threshold: float = 0.75,
        match_type: MatchType | str | Enum = MatchType.FULL,
        use_onnx: bool = False,
        detector: str | Path | Detector = "embedded",
        hooks: Iterable[Hook] = (),
    ) -> None:
        if model is not None:
            raise InputError("model takes LLM Guard's own objects, which can't be loaded here: name a detector (detector=...) instead")
        self._guard = Guard(detector, threshold=threshold, hooks=hooks)
        self._match_type = _match_type(match_type)

    def scan(self, prompt: str, output: str | None) -> tuple[str, bool, float]:
        """Return the output unchanged, whether it is valid (no refusal), and a risk score from -1.0 to 1.0.

        An empty output is valid with risk -1.0.
        """
        conversation = Conversation.from_pair(prompt, output)
        texts = [conversation.response] if self._match_type is MatchType.FULL else _split(conversation.response)
        threshold = self._guard.threshold
        with self._guard.events.judging([conversation], self._guard.unknown) as judged:
            verdicts = self._guard.judge([Conversation.from_pair(conversation.prompt, text) for text in texts])
            first_hit = next((verdict for verdict in verdicts if round(verdict.score, 2) > threshold), None)
            decisive = first_hit or max(verdicts, key=lambda verdict: verdict.score, default=self._guard.unknown(signal="empty"))
            judged.verdicts = [decisive]
        return conversation.response, *judged_risk(decisive, threshold)


def _split(text: str) -> list[str]:
    return [text[span.start : span.end] for span in sentences(text)]


def judged_risk(verdict: Verdict, threshold: float) -> tuple[bool, float]:
    """Return whether LLM Guard calls an output with this verdict valid, and its risk score."""
    score = round(verdict.score, 2)
    return score <= threshold, calculate_risk_score(score, threshold)


def calculate_risk_score(score: float, threshold: float) -> float:
    """Return LLM Guard's risk: the distance to the threshold as a share of what there is on that side, one decimal, -1.0 to 1.0.

    Formula: llm_guard/util.py, release 0.3.16. The sign does not decide: a score just above the threshold has risk 0.0.
    """
    room = 1 - threshold if score > threshold else threshold
    return min(1.0, max(-1.0, round((score - threshold) / room, 1))) + 0.0


def _match_type(value: MatchType | str | Enum) -> MatchType:
    try:
        return MatchType(value.value if isinstance(value, Enum) else value)
    except ValueError:
        raise InputError("match_type must be 'full' or 'sentence'") from None
