"""Puts a model folder together: files, calibration, threshold and hashes, all chosen on the held-out tenth of the rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta
from sklearn.linear_model import LogisticRegression

from refusal_guard.detectors.embedded.linear import LinearModel
from refusal_guard.detectors.embedded.passages import TokenBudget
from refusal_guard.detectors.embedded.runtime import Runtime
from refusal_guard.text import clip, plain, sentences

from .encoder import restore
from .export import export_encoder, export_linear
from .rows import LABELS, Row

WEIGHTS = ("encoder.onnx", "linear.safetensors", "tokenizer.json")
# What the first stage may cost by settling rows alone: the share of refusals that the encoder would have found, and of answers that
# it would have cleared. Far stricter there, because a false alarm costs more: at .002, nearly half of those on XSTest were settled
# unread. At .004 of the misses a twentieth more pairs are read, and F1 is the same to .002.
SETTLED_MISSES, SETTLED_ALARMS = 0.008, 0.001
# The share of the project's own answers, mostly hard negatives, that may be flagged, and how sure of it the held-out ones have to make us.
HARD_ALARMS, CONFIDENCE = 0.03, 0.95
# This share of the answers that the first stage would settle is read again, for a sentence of theirs looks like a refusal. At .02, a stock
# refusal after 500 words of answer was settled unread.
REREAD = 0.08
REASON_MARGIN = 0.4


@dataclass(frozen=True, slots=True)
class Readings:
    """What both stages say of the held-out rows: logits that a row declines, and the truth."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    strongest: NDArray[np.float64]
    declines: NDArray[np.bool_]
    partial: NDArray[np.bool_]
    own: NDArray[np.bool_]
    weights: NDArray[np.float64]


def assemble(linear: LinearModel, checkpoint: Path, rows: Sequence[Row], folder: Path) -> None:
    """Write the weights and config.json of a model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer = restore(checkpoint)
    export_encoder(model, folder / "encoder.onnx")
    export_linear(linear, folder / "linear.safetensors")
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    readings = read(Runtime.load(folder, asdict(TokenBudget())), [row for row in rows if row.held_out])
    config = {
        "format": 1,
        "name": folder.name,
        "labels": LABELS,
        **calibrated(readings),
        "reason_margin": REASON_MARGIN,
        "tokens": asdict(TokenBudget()),
        "files": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in WEIGHTS},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def read(runtime: Runtime, rows: Sequence[Row]) -> Readings:
    """Run both stages, as shipped, on every row that has text; the project's own rows get half of the total weight."""
    found = [(row, logits) for row in rows if (logits := both_logits(runtime, row))]
    rows = [row for row, _ in found]
    first, second, strongest = zip(*(logits for _, logits in found), strict=True)
    own = np.array([row.own for row in rows])
    weights = np.where(own, 0.5 / max(own.sum(), 1), 0.5 / max((~own).sum(), 1)) * len(rows)
    labels = np.array([row.label for row in rows])
    return Readings(np.array(first), np.array(second), np.array(strongest), labels != "compliance", labels == "partial", own, weights)


def first_logit(runtime: Runtime, row: Row) -> float:
    """Return the first stage's logit that a row declines."""
    return runtime.linear.read(sentences(clip(row.response)[0]))[0]


def both_logits(runtime: Runtime, row: Row) -> tuple[float, float, float] | None:
    """Return both stages' logits that a row declines, and the score of its strongest sentence; None when it has no text."""
    spans = sentences(clip(row.response)[0])
    if not spans:
        return None
    first, scores = runtime.linear.read(spans)
    compliance, partial, refusal = runtime.encoder_logits(plain(clip(row.prompt)[0]), spans, scores)
    return first, float(np.logaddexp(partial, refusal)) - compliance, float(scores.max())


def calibrated(readings: Readings) -> dict[str, object]:
    """Return the config's settle, blend and threshold parts.

    Both calibrations are logistic (Platt 1999) and fitted without regularisation on the weighted held-out rows.
    """
    below, above = settle_band(readings)
    low = readings.first <= below
    suspicious = float(np.quantile(readings.strongest[low & ~readings.declines], 1 - REREAD))
    both = np.column_stack((np.clip(readings.first, below, above), readings.second))
    blend = _logistic(both, readings)
    alone = _logistic(readings.first[:, None], readings)
    # As the detector has it: the sum says nothing on what is read for the sake of one sentence.
    both[low & (readings.strongest >= suspicious), 0] = 0.0
    return {
        "threshold": round(best_threshold(blend.predict_proba(both)[:, 1], readings), 3),
        "settle": {
            "below": below,
            "above": above,
            "suspicious": suspicious,
            "scale": float(alone.coef_[0][0]),
            "bias": float(alone.intercept_[0]),
        },
        "blend": {"first": float(blend.coef_[0][0]), "second": float(blend.coef_[0][1]), "bias": float(blend.intercept_[0])},
    }


def _logistic(features: NDArray[np.float64], readings: Readings) -> LogisticRegression:
    return LogisticRegression(C=1e6).fit(features, readings.declines, sample_weight=readings.weights)


def settle_band(readings: Readings) -> tuple[float, float]:
    """Return the logits between which the first stage passes a row on; partial rows are no misses.

    Only errors that the encoder would have mended count: what both stages get wrong, often a wrong label, is no reason to ask twice.
    """
    refusals, answers = readings.declines & ~readings.partial, ~readings.declines
    upwards = np.argsort(readings.first)
    downwards = upwards[::-1]
    missed = _running_share(readings, refusals, refusals & (readings.second > 0), upwards)
    alarms = _running_share(readings, answers, answers & (readings.second < 0), downwards)
    low, high = upwards[missed <= SETTLED_MISSES], downwards[alarms <= SETTLED_ALARMS]
    return float(readings.first[low[-1]]) if len(low) else -np.inf, float(readings.first[high[-1]]) if len(high) else np.inf


def _running_share(readings: Readings, kind: NDArray[np.bool_], mended: NDArray[np.bool_], order: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return, along an order of the rows, which weighted share of a kind of rows the encoder would have mended up to there."""
    return np.cumsum((readings.weights * mended)[order]) / readings.weights[kind].sum()


def best_threshold(scores: NDArray[np.float64], readings: Readings) -> float:
    """Return the threshold with the highest weighted F1, partial rows left out, among those that keep to HARD_ALARMS.

    The bound, because a false alarm on an ordinary answer is what users meet first. Where none keeps to it, the strictest is taken.
    """
    whole = ~readings.partial
    hard = scores[readings.own & ~readings.declines]
    thresholds = np.linspace(0.2, 0.995, 160)
    candidates = [t for t in thresholds if greatest_share(int((hard >= t).sum()), len(hard)) <= HARD_ALARMS] or thresholds[-1:]
    scores, declines, weights = scores[whole], readings.declines[whole], readings.weights[whole]
    return float(max(candidates, key=lambda t: _f1(scores >= t, declines, weights)))


def greatest_share(found: int, among: int) -> float:
    """Return the share that a kind has at most, with CONFIDENCE, when so many of a sample are of it (Clopper and Pearson 1934)."""
    return float(beta.ppf(CONFIDENCE, found + 1, among - found)) if found < among else 1.0


def _f1(flagged: NDArray[np.bool_], declines: NDArray[np.bool_], weights: NDArray[np.float64]) -> float:
    hits = weights[flagged & declines].sum()
    return float(2 * hits / (weights[flagged].sum() + weights[declines].sum()))
