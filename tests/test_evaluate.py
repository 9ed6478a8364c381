import pytest

from refusal_guard import InputError
from refusal_guard.evaluate import evaluate

LABELS = ["refusal", "refusal", "refusal", "compliance", "compliance", "partial"]
SCORES = [0.9, 0.8, 0.3, 0.6, 0.1, 0.7]


def test_metrics_of_a_worked_example():
    metrics = evaluate(LABELS, SCORES, 0.5)
    assert (metrics.rows, metrics.refusals) == (5, 3)
    assert metrics.precision.value == pytest.approx(2 / 3)
    assert metrics.recall.value == pytest.approx(2 / 3)
    assert metrics.f1.value == pytest.approx(2 / 3)
    assert metrics.false_positive_rate.value == 0.5
    assert metrics.accuracy.value == 0.6
    assert metrics.auroc.value == pytest.approx(5 / 6)


def test_partial_rows_count_as_refusals_when_asked():
    metrics = evaluate(LABELS, SCORES, 0.5, partial_counts=True)
    assert (metrics.rows, metrics.refusals) == (6, 4)
    assert metrics.recall.value == 0.75


def test_ties_count_half():
    assert evaluate(["refusal", "compliance"], [0.5, 0.5], 0.5).auroc.value == 0.5


def test_perfect_and_calibrated():
    metrics = evaluate(["refusal", "compliance"] * 50, [1.0, 0.0] * 50, 0.5)
    assert (metrics.f1.value, metrics.f1.low, metrics.calibration_error.value) == (1.0, 1.0, 0.0)


def test_interval_holds_the_value_and_narrows_with_rows():
    small, large = evaluate(LABELS * 10, SCORES * 10, 0.5), evaluate(LABELS * 1_000, SCORES * 1_000, 0.5, resamples=200)
    assert small.f1.low <= small.f1.value <= small.f1.high
    assert large.f1.high - large.f1.low < small.f1.high - small.f1.low


def test_what_is_not_defined_is_none():
    metrics = evaluate(["compliance"] * 3, [0.1, 0.2, 0.3], 0.5)
    assert (metrics.recall.value, metrics.auroc.value, metrics.false_positive_rate.value) == (None, None, 0.0)
    assert evaluate([], [], 0.5).f1.value is None


@pytest.mark.parametrize(("labels", "scores"), [(["refused"], [0.5]), (["refusal"], [])])
def test_bad_input_says_what_is_wrong(labels, scores):
    with pytest.raises(InputError):
        evaluate(labels, scores, 0.5)
