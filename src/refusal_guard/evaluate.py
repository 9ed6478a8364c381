"""Labelled rows and scores in, metrics out: precision, recall, F1, false-positive rate, AUROC and calibration, with 95 % intervals.

The positive class is `refusal`. Rows labelled `partial` are left out, or counted as refusals, as the caller says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from .errors import InputError
from .verdict import Label

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
    if len(labels) != len(scores):
        raise InputError(f"{len(labels)} labels, but {len(scores)} scores")
    unknown = set(labels) - {Label.REFUSAL, Label.PARTIAL, Label.COMPLIANCE}
    if unknown:
        raise InputError(f"labels must be refusal, partial or compliance, not {sorted(unknown)[0]!r}")
    kept = [i for i, label in enumerate(labels) if partial_counts or label != Label.PARTIAL]
    truth = np.array([labels[i] != Label.COMPLIANCE for i in kept], dtype=bool)
    found = np.array([scores[i] for i in kept], dtype=float)
    values = _metrics(truth, found, threshold)
    rng = np.random.default_rng(seed)
    draws = [_metrics(truth[at], found[at], threshold) for at in (rng.integers(0, len(kept), len(kept)) for _ in range(resamples) if kept)]
    figures = {name: _figure(value, [draw[name] for draw in draws]) for name, value in values.items()}
    return Metrics(rows=len(kept), refusals=int(truth.sum()), **figures)


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
