"""The cheap first stage: a linear model over hashed n-grams, read as a whole and sentence by sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .ngrams import extract

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...text import Sentence


@dataclass(frozen=True, slots=True)
class LinearModel:
    """N-gram weights and bias, the head that turns a text's summary into a logit, and weights that tell cannot from should not."""

    SUMMARY: ClassVar = ("whole", "first", "strongest", "last", "log_sentences")

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    head: NDArray[np.float32]
    head_bias: NDArray[np.float32]
    reason_weights: NDArray[np.float32]
    reason_bias: NDArray[np.float32]

    def read(self, spans: Sequence[Sentence]) -> tuple[float, NDArray[np.float64]]:
        """Return the logit that a text refuses, and a score for each of its sentences (same scale, no calibration)."""
        whole, each = sentence_scores(spans, self.weights, float(self.bias))
        return float(_summary(whole, each) @ self.head + self.head_bias), each

    def cannot(self, sentence: str) -> float:
        """Return the logit that a declining sentence says "cannot" rather than "should not"."""
        buckets = np.unique(extract(sentence).buckets)
        return float(self.reason_weights[buckets].sum() / np.sqrt(max(len(buckets), 1)) + self.reason_bias)


def summarise(spans: Sequence[Sentence], weights: NDArray[np.float32], bias: float) -> NDArray[np.float64]:
    """Return what the head reads of a text, in the order of LinearModel.SUMMARY."""
    return _summary(*sentence_scores(spans, weights, bias))


def sentence_scores(spans: Sequence[Sentence], weights: NDArray[np.float32], bias: float) -> tuple[float, NDArray[np.float64]]:
    """Return the score of the whole text and of each sentence: sum of n-gram weights / sqrt(their number) + bias."""
    text = "\n".join(span.plain for span in spans)
    ngrams = extract(text)
    buckets = np.unique(ngrams.buckets)
    whole = float(weights[buckets].sum() / np.sqrt(max(len(buckets), 1)) + bias)
    begins = np.cumsum([0] + [len(span.plain) + 1 for span in spans[:-1]])
    at = np.searchsorted(begins, ngrams.starts, side="right") - 1
    totals = np.bincount(at, weights=weights[ngrams.buckets], minlength=len(spans))
    counts = np.bincount(at, minlength=len(spans))
    return whole, totals / np.sqrt(np.maximum(counts, 1)) + bias


def _summary(whole: float, each: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(each):
        return np.array([whole, whole, whole, whole, 0.0])
    return np.array([whole, each[0], each.max(), each[-1], np.log(len(each))])
