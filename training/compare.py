"""The alternatives side by side on a sample of held-out and evaluation rows: quality, milliseconds a pair on one core, megabytes."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from refusal_guard.conversation import Conversation
from refusal_guard.detectors.embedded import EmbeddedDetector
from refusal_guard.detectors.embedded.passages import TokenBudget
from refusal_guard.detectors.embedded.runtime import Runtime
from refusal_guard.evaluate import evaluate
from refusal_guard.text import clip, sentences

from . import static
from .assemble import Readings, best_threshold, both_logits, first_logit, read
from .encoder import example
from .rows import Row

TIMED_PAIRS = 200
ROWS_PER_SET = 500
Scorer = Callable[[Sequence[Row]], NDArray[np.float64]]


def compare(folder: Path, table: torch.Tensor, rows: Sequence[Row], evaluation: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Return a table row for each alternative, from the shipped folder and a static model trained here."""
    torch.set_num_threads(1)
    runtime = Runtime.load(folder, asdict(TokenBudget()))
    held_out = _sampled([row for row in rows if row.held_out and sentences(row.response)], 3 * ROWS_PER_SET)
    evaluation = {name: _sampled(some, ROWS_PER_SET) for name, some in evaluation.items()}
    readings = read(runtime, held_out)
    scorers = {
        "hashed n-grams, linear": (
            lambda some: np.array([first_logit(runtime, row) for row in some]),
            _megabytes(folder, "linear.safetensors"),
        ),
        "static embeddings, MLP": (_static_scorer(runtime, table, rows), (table.numel() * 4 + 700_000) / 1e6),
        "encoder alone, int8": (
            lambda some: np.array([both_logits(runtime, row)[1] for row in some]),
            _megabytes(folder, "encoder.onnx", "tokenizer.json"),
        ),
        "cascade (shipped)": (_cascade_scorer(folder), _megabytes(folder, "encoder.onnx", "tokenizer.json", "linear.safetensors")),
    }
    return {name: _measured(scorer, size, held_out, readings, evaluation) for name, (scorer, size) in scorers.items()}


def _sampled(rows: Sequence[Row], most: int) -> list[Row]:
    return list(rows) if len(rows) <= most else random.Random(0).sample(list(rows), most)


def _megabytes(folder: Path, *names: str) -> float:
    return sum((folder / name).stat().st_size for name in names) / 1e6


def _static_scorer(runtime: Runtime, table: torch.Tensor, rows: Sequence[Row]) -> Scorer:
    def encoded(some: Sequence[Row]) -> list[Any]:
        return [example(row, runtime.tokenizer, runtime.linear, runtime.budget) for row in some]

    model = static.train(table, encoded([row for row in rows if not row.held_out and sentences(row.response)]), epochs=4, seed=0)
    return lambda some: static.declines(model, encoded(some))


def _cascade_scorer(folder: Path) -> Scorer:
    detector = EmbeddedDetector(folder)

    def score(some: Sequence[Row]) -> NDArray[np.float64]:
        found = detector.detect([Conversation.from_pair(row.prompt, row.response) for row in some])
        scores = np.array([detection.score if detection else 0.0 for detection in found])
        return np.log(np.clip(scores, 1e-9, 1 - 1e-9) / np.clip(1 - scores, 1e-9, 1))

    return score


def _measured(
    scorer: Scorer, megabytes: float, held_out: Sequence[Row], readings: Readings, evaluation: Mapping[str, Sequence[Row]]
) -> dict[str, Any]:
    """Calibrate on the held-out rows, choose the threshold there, and report everything else at it."""
    logits = scorer(held_out)
    fitted = LogisticRegression(C=1e6).fit(logits[:, None], readings.declines, sample_weight=readings.weights)
    threshold = best_threshold(fitted.predict_proba(logits[:, None])[:, 1], readings)
    sets = {"held-out": held_out, **evaluation}
    found: dict[str, Any] = {"megabytes": megabytes, "milliseconds": _milliseconds(scorer, evaluation or {"": held_out}), "sets": {}}
    for name, rows in sets.items():
        kept = [row for row in rows if sentences(clip(row.response)[0])]
        scores = fitted.predict_proba(scorer(kept)[:, None])[:, 1]
        metrics = evaluate([row.label for row in kept], scores.tolist(), threshold, resamples=0)
        found["sets"][name] = {figure: getattr(metrics, figure).value for figure in ("f1", "false_positive_rate", "auroc")}
    return found


def _milliseconds(scorer: Scorer, evaluation: Mapping[str, Sequence[Row]]) -> dict[str, float]:
    """Time one row at a time; the first few warm up."""
    rows = [row for some in evaluation.values() for row in some if sentences(row.response)]
    chosen = rows[:: max(1, len(rows) // TIMED_PAIRS)]
    seconds = []
    for row in [*chosen[:5], *chosen]:
        started = time.perf_counter()
        scorer([row])
        seconds.append(time.perf_counter() - started)
    return {"mean": statistics.mean(seconds[5:]) * 1_000, "median": statistics.median(seconds[5:]) * 1_000}
