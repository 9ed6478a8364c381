"""The first stage: logistic regression on hashed n-grams of the response, then a small one on its sentence scores."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from refusal_guard.detectors.embedded.linear import LinearModel, sentence_scores, summarise
from refusal_guard.detectors.embedded.ngrams import BUCKET_BITS, extract
from refusal_guard.text import plain, sentences

from .rows import Row

REGULARISATION = 10.0
_SENTENCES_PER_ANSWER = 2
_FOLDS = 4


def matrix(texts: Sequence[str]) -> sparse.csr_matrix:
    """Return texts x buckets: presence of each hashed n-gram, divided by the square root of their number."""
    columns = [np.unique(extract(text).buckets) for text in texts]
    values = [np.full(len(part), 1 / np.sqrt(max(len(part), 1)), dtype=np.float32) for part in columns]
    offsets = np.cumsum([0, *map(len, columns)])
    return sparse.csr_matrix((np.concatenate(values), np.concatenate(columns), offsets), shape=(len(texts), 1 << BUCKET_BITS))


def fit_weights(texts: Sequence[str], positive: NDArray[np.bool_], weights: NDArray[np.float64]) -> tuple[NDArray[np.float32], float]:
    """Fit the n-gram weights; returns them and the intercept."""
    model = LogisticRegression(C=REGULARISATION, solver="liblinear")
    model.fit(matrix(texts), positive, sample_weight=weights)
    return model.coef_[0].astype(np.float32), float(model.intercept_[0])


def fit(rows: Sequence[Row], seed: int = 0) -> LinearModel:
    """Fit the first stage on all rows; the head on top is fitted on out-of-fold scores, so it sees honest ones."""
    groups = np.array([zlib.crc32(plain(row.prompt)[:80].encode("utf-8", "surrogatepass")) for row in rows])
    positive = np.array([row.label != "compliance" for row in rows])
    features = np.zeros((len(rows), len(LinearModel.SUMMARY)))
    for inside, outside in GroupKFold(n_splits=_FOLDS).split(rows, positive, groups):
        fold = _fit_ngrams([rows[i] for i in inside], seed)
        for i in outside:
            features[i] = summarise(sentences(rows[i].response), *fold)
    head = LogisticRegression(C=1.0).fit(features, positive, sample_weight=[row.weight for row in rows])
    weights, bias = _fit_ngrams(rows, seed)
    reason_weights, reason_bias = _fit_reasons(rows, weights, bias)
    return LinearModel(
        weights, _scalar(bias), head.coef_[0].astype(np.float32), _scalar(head.intercept_[0]), reason_weights, _scalar(reason_bias)
    )


def _scalar(value: float) -> NDArray[np.float32]:
    return np.array(value, dtype=np.float32)


def _fit_reasons(rows: Sequence[Row], weights: NDArray[np.float32], bias: float) -> tuple[NDArray[np.float32], float]:
    """Fit cannot against should not on the most refusing sentence of each declining row whose reason is known."""
    known = [row for row in rows if row.label != "compliance" and row.reason and row.response.strip()]
    texts = []
    for row in known:
        spans = sentences(row.response)
        _, each = sentence_scores(spans, weights, bias)
        texts.append(spans[int(each.argmax())].plain)
    return fit_weights(texts, np.array([row.reason == "cannot" for row in known]), np.array([row.weight for row in known]))


def _fit_ngrams(rows: Sequence[Row], seed: int) -> tuple[NDArray[np.float32], float]:
    """Train on whole responses and on single sentences of full answers, for it will be asked about single sentences too."""
    rng = random.Random(seed)
    kept = [row for row in rows if row.label != "partial"]
    texts = ["\n".join(s.plain for s in sentences(row.response)) for row in kept]
    positive = [row.label == "refusal" for row in kept]
    weights = [row.weight for row in kept]
    for row in kept:
        if row.label == "compliance":
            spans = sentences(row.response)
            for sentence in rng.sample(spans, min(_SENTENCES_PER_ANSWER, len(spans))):
                texts.append(sentence.plain)
                positive.append(False)
                weights.append(row.weight / _SENTENCES_PER_ANSWER)
    return fit_weights(texts, np.array(positive), np.array(weights))
