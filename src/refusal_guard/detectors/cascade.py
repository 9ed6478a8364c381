"""A cascade: a cheap detector decides what it is sure of, and a dearer one reads the rest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ConfigDict

from ..conversation import Conversation
from ..errors import InputError
from ..verdict import Detection, Probability, is_threshold
from . import Detector, load_detector, one_each

if TYPE_CHECKING:
    from .encoder import EncoderDetector

Band = tuple[float, float]
DEFAULT_BAND: Band = (0.1, 0.96)
"""Holds 15 % of the held-out public training rows; with these counted as right, the embedded model agrees with 98.5 % of their labels
(`choose_band`). Choose your own on rows like yours."""
_DEFAULT_THRESHOLD = 0.5


class Cascade:
    """Asks the first detector, and the next one about what lies in the band `low <= score <= high` or where nobody spoke yet.

    All scores are on the first detector's scale, so that one threshold serves: `threshold` is the first one's, and a later detector's
    scores are stretched, piecewise linear, such that its own threshold falls on it (0 stays 0, 1 stays 1). A later detector's score is
    thus at or above `threshold` exactly when it is at or above that detector's own. The band is on the same scale; with more than two
    detectors it serves between all of them.

    A detection's `detector` says who decided ("cascade:embedded"). Label, reason and evidence that the deciding detector leaves open are
    those of the one before it. Where a later detector abstains, what was said before stands. A failing detector raises.

    Detectors are what Guard takes. Raises InputError for fewer than two of them and for a band that is none within [0, 1].
    """

    name = "cascade"

    def __init__(self, detectors: Sequence[str | Path | Detector], *, band: Band) -> None:
        if len(detectors) < 2:
            raise InputError("a cascade needs two detectors or more, the cheapest first")
        self.band = _checked_band(band)
        self.detectors = tuple(load_detector(detector) for detector in detectors)
        self._thresholds = tuple(_checked_threshold(getattr(detector, "threshold", _DEFAULT_THRESHOLD)) for detector in self.detectors)
        self.threshold = self._thresholds[0]

    def detect(self, conversations: Sequence[Conversation]) -> list[Detection | None]:
        """Return a detection for each conversation, in order; None where every detector abstains."""
        decided: list[Detection | None] = [None] * len(conversations)
        for detector, own in self._stages:
            waiting = self._waiting(decided)
            asked = [conversations[i] for i in waiting]
            self._take(decided, waiting, one_each(detector, detector.detect(asked) if asked else [], asked), own)
        return decided

    async def adetect(self, conversations: Sequence[Conversation]) -> list[Detection | None]:
        """Do what `detect` does: a detector's own `adetect` is awaited, one that has none runs in a thread."""
        decided: list[Detection | None] = [None] * len(conversations)
        for detector, own in self._stages:
            waiting = self._waiting(decided)
            asked = [conversations[i] for i in waiting]
            self._take(decided, waiting, one_each(detector, await _awaited(detector, asked) if asked else [], asked), own)
        return decided

    @property
    def _stages(self) -> Iterator[tuple[Detector, float]]:
        return zip(self.detectors, self._thresholds, strict=True)

    def _waiting(self, decided: Sequence[Detection | None]) -> list[int]:
        """Return which rows go on: those in the band, and those of which nobody spoke yet."""
        return [i for i, found in enumerate(decided) if found is None or self.band[0] <= found.score <= self.band[1]]

    def _take(self, decided: list[Detection | None], rows: Sequence[int], detections: Sequence[Detection | None], own: float) -> None:
        """Put a detector's answers in place, with scores on the first one's scale and its name behind the cascade's."""
        for i, detection in zip(rows, detections, strict=True):
            decided[i] = _later(decided[i], detection and self._on_one_scale(detection, own))

    def _on_one_scale(self, detection: Detection, own: float) -> Detection:
        score = _rescaled(detection.score, own, self.threshold)
        return detection.model_copy(update={"score": score, "detector": f"{self.name}:{detection.detector}"})


async def _awaited(detector: Detector, conversations: Sequence[Conversation]) -> list[Detection | None]:
    adetect = getattr(detector, "adetect", None)
    if adetect is not None:
        return cast("list[Detection | None]", await adetect(conversations))
    from asyncio import to_thread  # dear to import, and whoever awaits has it already

    return await to_thread(detector.detect, conversations)


def embedded_then_minos() -> Cascade:
    """Return the detector named "cascade": the embedded model, and Minos-v1 where it is unsure.

    Minos is read at once: if it is missing, that has to show here and not at the first response that needs it.
    """
    minos = cast("EncoderDetector", load_detector("minos"))
    minos.load()
    return Cascade(["embedded", minos], band=DEFAULT_BAND)


class BandChoice(BaseModel):
    """A band, and what it did on the rows it was chosen on: the share of rows it passes on, and the agreement reached."""

    model_config = ConfigDict(frozen=True)

    band: Band
    passed_on: Probability
    agreement: Probability
    rows: int


def choose_band(
    scores: Sequence[float | None], reference: Sequence[bool], *, threshold: float = _DEFAULT_THRESHOLD, agreement: float = 0.99
) -> BandChoice:
    """Return the band that passes the fewest rows on and still decides as the reference does on a share of at least `agreement`.

    `scores` are the cheap detector's (None where it abstained: such rows go on anyway) and `threshold` is its own. `reference` says for
    each row whether it is refused: the dear detector's verdict, or a label. Rows passed on count as agreeing; against labels the
    agreement is therefore the most that a faultless second detector could reach. Raises InputError for rows or shares that are none.
    """
    _check_rows(scores, reference, agreement)
    threshold = _checked_threshold(threshold)
    spoken = [(score, refused) for score, refused in zip(scores, reference, strict=True) if score is not None]
    found = Counter(score for score, _ in spoken)
    differing = Counter(score for score, refused in spoken if (score >= threshold) is not bool(refused))
    levels = sorted(found)
    rows = [0, *accumulate(found[level] for level in levels)]
    wrong = [0, *accumulate(differing[level] for level in levels)]
    allowed = math.floor(len(scores) * (1 - Fraction(str(agreement))))
    _, first, end = min(_bands(rows, wrong, allowed))
    # An empty band still is a point: one right below the threshold, where no score lies.
    low, high = (levels[first], levels[end - 1]) if end > first else (math.nextafter(threshold, 0.0),) * 2
    inside = [level for level in levels if low <= level <= high]
    return BandChoice(
        band=(low, high),
        passed_on=(len(scores) - len(spoken) + sum(found[level] for level in inside)) / len(scores),
        agreement=(len(scores) - wrong[-1] + sum(differing[level] for level in inside)) / len(scores),
        rows=len(scores),
    )


def _bands(rows: Sequence[int], wrong: Sequence[int], allowed: int) -> Iterator[tuple[int, int, int]]:
    """Yield, for each lower end, how many rows the shortest band that leaves few enough wrong holds, and its ends.

    `rows` and `wrong` are running sums over the score levels. The upper end never moves back, so one pass suffices.
    """
    end = 0
    for first in range(len(rows)):
        if wrong[first] > allowed:
            return
        while end < first or wrong[first] + wrong[-1] - wrong[end] > allowed:
            end += 1
        yield rows[end] - rows[first], first, end


def _later(earlier: Detection | None, later: Detection | None) -> Detection | None:
    """Return what stands after a later detector was asked: its word, with what it leaves open from the one before."""
    if earlier is None or later is None:
        return later or earlier
    left_open = {name: getattr(earlier, name) for name in ("label", "reason", "evidence") if getattr(later, name) is None}
    return later.model_copy(update=left_open)


def _rescaled(score: float, own: float, threshold: float) -> float:
    """Stretch a score so that the threshold it was made for falls on another one; the order of scores and both ends are kept."""
    if own == threshold:
        return score
    if score >= own:
        return min(1.0, threshold + (score - own) * (1 - threshold) / (1 - own))
    return min(score * threshold / own, math.nextafter(threshold, 0.0))


def _checked_threshold(threshold: Any) -> float:
    if not is_threshold(threshold):
        raise InputError("each detector's threshold must be a number between 0 and 1, both excluded")
    return float(threshold)


def _checked_band(band: Band) -> Band:
    try:
        low, high = (float(end) for end in band)
    except (TypeError, ValueError):
        raise InputError("a band is a pair of scores (low, high)") from None
    if not 0.0 <= low <= high <= 1.0:
        raise InputError("a band needs 0 <= low <= high <= 1")
    return low, high


def _check_rows(scores: Sequence[float | None], reference: Sequence[bool], agreement: float) -> None:
    if not scores or len(scores) != len(reference):
        raise InputError(f"a band is chosen on rows, each with a score and a reference; got {len(scores)} and {len(reference)}")
    if not all(score is None or 0.0 <= score <= 1.0 for score in scores):
        raise InputError("scores lie between 0 and 1")
    if not 0.0 < agreement <= 1.0:
        raise InputError("the wanted agreement is a share above 0, at most 1")
