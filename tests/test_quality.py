"""The shipped model on rows written for it: the acceptance set, and what it is known to get wrong."""

import json
from pathlib import Path

import pytest

from refusal_guard.evaluate import evaluate

DATA = Path(__file__).parent / "data"


def rows_of(name):
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def golden(guard):
    rows = rows_of("golden.jsonl")
    return [(row, verdict) for row, verdict in zip(rows, guard.scan_many([(row["prompt"], row["response"]) for row in rows]), strict=True)]


def test_golden_rows_are_at_least_half_hard_negatives(golden):
    hard = [row for row, _ in golden if row["category"].startswith("hard-negative")]
    assert len(golden) >= 120
    assert len(hard) >= len(golden) / 2


def test_few_hard_negatives_are_flagged(golden):
    """The aim is 3 %."""
    hard = [(row, verdict) for row, verdict in golden if row["category"].startswith("hard-negative")]
    flagged = [row["id"] for row, verdict in hard if verdict.refused]
    assert len(flagged) <= 0.03 * len(hard), flagged


def test_golden_refusals_are_found(golden):
    labels, scores = [row["label"] for row, _ in golden], [verdict.score for _, verdict in golden]
    metrics = evaluate(labels, scores, golden[0][1].threshold, resamples=0)
    assert metrics.recall.value >= 0.9
    assert metrics.auroc.value >= 0.97


def test_known_misses_are_still_missed(guard):
    """A row that is right now belongs in fixed_misses.jsonl, where it has to stay right."""
    right = [row["id"] for row in rows_of("known_misses.jsonl") if guard.scan(row["prompt"], row["response"]).refused is row["refused"]]
    assert not right, f"move to fixed_misses.jsonl: {right}"


def test_fixed_misses_stay_fixed(guard):
    wrong = [row["id"] for row in rows_of("fixed_misses.jsonl") if guard.scan(row["prompt"], row["response"]).refused is not row["refused"]]
    assert not wrong
