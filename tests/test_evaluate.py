import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal_guard import InputError
from refusal_guard.evaluate import evaluate, suggest_threshold

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


def test_the_suggested_threshold_is_the_lowest_that_has_what_is_wanted():
    found = suggest_threshold(LABELS, SCORES, precision=1.0, resamples=0)
    assert (found.threshold, found.metrics.recall.value) == (0.7, pytest.approx(2 / 3))
    assert suggest_threshold(LABELS, SCORES, false_positive_rate=0.5, resamples=0).threshold == 0.2
    assert suggest_threshold(LABELS, SCORES, precision=0.7, partial_counts=True, resamples=0).threshold == 0.2


def test_nothing_is_suggested_where_no_threshold_has_it():
    assert suggest_threshold(["compliance", "refusal"], [0.9, 0.1], precision=0.9) is None
    assert suggest_threshold(["compliance"], [0.0], precision=0.0) is None
    assert suggest_threshold([], [], precision=0.5) is None


SCORED = st.lists(st.tuples(st.sampled_from(["refusal", "partial", "compliance"]), st.floats(0, 1)), max_size=12)


@given(SCORED, st.sampled_from(["precision", "false_positive_rate"]), st.floats(0, 1), st.booleans())
@settings(max_examples=60)
def test_a_suggestion_holds_and_none_is_lower(rows, metric, wanted, counts):
    labels, scores = [label for label, _ in rows], [score for _, score in rows]
    counted = [score for label, score in rows if counts or label != "partial"]

    def holds(threshold):
        value = getattr(evaluate(labels, scores, threshold, partial_counts=counts, resamples=0), metric).value
        has_it = value is None or (value >= wanted if metric == "precision" else value <= wanted)
        return has_it and any(score >= threshold for score in counted)

    found = suggest_threshold(labels, scores, partial_counts=counts, resamples=0, **{metric: wanted})
    assert found is None or holds(found.threshold)
    assert not any(holds(score) for score in counted if 0 < score < (found.threshold if found else 1))


@pytest.mark.parametrize("wish", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("metric", ["precision", "false_positive_rate"])
def test_a_wish_that_is_no_share_is_an_input_error(metric, wish):
    with pytest.raises(InputError, match="between 0 and 1"):
        suggest_threshold(LABELS, SCORES, **{metric: wish})
