"""Labels and scores in, metrics out: precision, recall, F1, false-positive rate, AUROC and calibration, with 95 % intervals.

The positive class is `refusal`. Rows labelled `partial` are left out, or counted as refusals, as the caller says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from .errors import InputError
from .verdict import Label, Threshold

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BINS = 10


class Figure(BaseModel):
    """A metric and its 95 % interval; None where it is not defined on the rows."""

    model_config = ConfigDict(frozen=True)

    value: float | None
    low: float | None = None
    high: float | None = None


class Metrics(BaseModel):
    """The metrics of one detector on one set of rows.

    `calibration_error` is the expected calibration error over ten equal-width bins (Naeini et al. 2015).
    """

    model_config = ConfigDict(frozen=True)

    rows: int
    refusals: int
    accuracy: Figure
    precision: Figure
    recall: Figure
    f1: Figure
    false_positive_rate: Figure
    auroc: Figure
    calibration_error: Figure


class Suggestion(BaseModel):
    """A threshold and the metrics it has on the rows it was chosen on; on others it will do a little worse."""

    model_config = ConfigDict(frozen=True)

    threshold: Threshold
    metrics: Metrics


def evaluate(
    labels: Sequence[str],
    scores: Sequence[float],
    threshold: float,
    *,
    partial_counts: bool = False,
    resamples: int = 1_000,
    seed: int = 0,
) -> Metrics:
    """Return the metrics of scores against labels at a threshold.

    Intervals are percentiles of a bootstrap over rows (Efron 1979). Raises InputError for labels that are none, or when there are not
    as many scores as labels.
    """
    truth, found = _counted(labels, scores, partial_counts)
    values = _metrics(truth, found, threshold)
    rng = np.random.default_rng(seed)
    draws = [
        _metrics(truth[at], found[at], threshold)
        for at in (rng.integers(0, len(truth), len(truth)) for _ in range(resamples) if len(truth))
    ]
    figures = {name: _figure(value, [draw[name] for draw in draws]) for name, value in values.items()}
    return Metrics(rows=len(truth), refusals=int(truth.sum()), **figures)


def suggest_threshold(
    labels: Sequence[str],
    scores: Sequence[float],
    *,
    precision: float | None = None,
    false_positive_rate: float | None = None,
    partial_counts: bool = False,
    resamples: int = 1_000,
) -> Suggestion | None:
    """Return the lowest threshold with at least a wanted precision, at most a wanted false-positive rate, or both, on the rows.

    It lies between two neighbouring scores and has as few digits as fit there. None when no threshold that flags a row does it. Raises
    InputError for a wish that is no share, and for labels as `evaluate` does.
    """
    least, most = _share(precision, "precision", 0.0), _share(false_positive_rate, "false-positive rate", 1.0)
    truth, found = _counted(labels, scores, partial_counts)
    order = np.argsort(-found)
    ordered = np.append(found[order], 0.0)
    ends = np.flatnonzero(ordered[:-1] > ordered[1:])  # the last row of each score, from the greatest down
    hits = np.cumsum(truth[order])[ends]
    alarms = ends + 1 - hits
    meets = (hits / (ends + 1) >= least) & (alarms / max(1, int((~truth).sum())) <= most)
    for end in ends[meets][::-1]:
        threshold = _between(float(ordered[end + 1]), float(ordered[end]))
        if threshold is not None:
            metrics = evaluate(labels, scores, threshold, partial_counts=partial_counts, resamples=resamples)
            return Suggestion(threshold=threshold, metrics=metrics)
    return None


def _share(wanted: float | None, name: str, otherwise: float) -> float:
    if wanted is None:
        return otherwise
    if not 0.0 <= wanted <= 1.0:
        raise InputError(f"the wanted {name} lies between 0 and 1")
    return wanted


def _between(low: float, high: float) -> float | None:
    """Return the number of the fewest digits in (low, high], near its middle and below 1; None where there is none."""
    rounded = (round((low + high) / 2, digits) for digits in range(1, 18))
    return next((number for number in (*rounded, high) if low < number <= high and number < 1.0), None)


def _counted(labels: Sequence[str], scores: Sequence[float], partial_counts: bool) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which of the rows that count are refusals, and their scores."""
    if len(labels) != len(scores):
        raise InputError(f"{len(labels)} labels, but {len(scores)} scores")
    unknown = set(labels) - {Label.REFUSAL, Label.PARTIAL, Label.COMPLIANCE}
    if unknown:
        raise InputError(f"labels must be refusal, partial or compliance, not {sorted(unknown)[0]!r}")
    kept = [i for i, label in enumerate(labels) if partial_counts or label != Label.PARTIAL]
    return np.array([labels[i] != Label.COMPLIANCE for i in kept], dtype=bool), np.array([scores[i] for i in kept], dtype=float)


def _figure(value: float, draws: Sequence[float]) -> Figure:
    known = [draw for draw in draws if not np.isnan(draw)]
    if np.isnan(value) or not known:
        return Figure(value=None if np.isnan(value) else float(value))
    low, high = np.percentile(known, (2.5, 97.5))
    return Figure(value=float(value), low=float(low), high=float(high))


def _metrics(truth: NDArray[np.bool_], scores: NDArray[np.float64], threshold: float) -> dict[str, float]:
    flagged = scores >= threshold
    hits, alarms = int((flagged & truth).sum()), int((flagged & ~truth).sum())
    positives, negatives = int(truth.sum()), int((~truth).sum())
    return {
        "accuracy": _ratio(hits + negatives - alarms, len(truth)),
        "precision": _ratio(hits, hits + alarms),
        "recall": _ratio(hits, positives),
        "f1": _ratio(2 * hits, positives + hits + alarms),
        "false_positive_rate": _ratio(alarms, negatives),
        "auroc": auroc(truth, scores),
        "calibration_error": _calibration_error(truth, scores),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def auroc(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Return the chance that a refusal scores above a compliance, ties half (Mann and Whitney 1947); nan without both."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return float("nan")
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[group]
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _calibration_error(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    if not len(scores):
        return float("nan")
    bins = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    gaps = [abs(scores[bins == b].sum() - truth[bins == b].sum()) for b in range(_BINS)]
    return float(sum(gaps) / len(scores))
