from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal_guard import InputError, NoRefusal
from refusal_guard.scanner import MatchType, calculate_risk_score
from refusal_guard.testing import FixedDetector

# calculate_risk_score of llm_guard 0.3.16, values read off the real function; -0.0 there is 0.0 here.
RISK = {
    0.75: {0: -1, 0.25: -0.7, 0.5: -0.3, 0.7: -0.1, 0.72: 0.0, 0.75: 0, 0.76: 0, 0.77: 0.1, 0.8: 0.2, 0.9: 0.6, 0.95: 0.8, 0.99: 1, 1: 1},
    0.5: {0: -1, 0.25: -0.5, 0.5: 0, 0.7: 0.4, 0.72: 0.4, 0.75: 0.5, 0.76: 0.5, 0.77: 0.5, 0.8: 0.6, 0.9: 0.8, 0.95: 0.9, 0.99: 1, 1: 1},
}


@pytest.mark.parametrize(("threshold", "score", "risk"), [(t, s, r) for t, row in RISK.items() for s, r in row.items()])
def test_risk_scale_is_llm_guards(threshold, score, risk):
    found = calculate_risk_score(score, threshold)
    assert found == risk
    assert str(found) != "-0.0"


@given(st.floats(0, 1), st.floats(0.01, 0.99))
def test_risk_lies_between_minus_one_and_one(score, threshold):
    assert -1 <= calculate_risk_score(score, threshold) <= 1


def test_refusal_is_invalid_and_the_output_unchanged():
    assert NoRefusal(detector=FixedDetector(0.9)).scan("p", "r") == ("r", False, 0.6)


def test_answer_is_valid():
    assert NoRefusal(detector=FixedDetector(0.3)).scan("p", "r") == ("r", True, -0.6)


@pytest.mark.parametrize(("score", "valid"), [(0.75, True), (0.754, True), (0.755, False), (0.76, False)])
def test_comparison_is_strict_on_the_score_rounded_to_two_decimals(score, valid):
    assert NoRefusal(detector=FixedDetector(score)).scan("", "r")[1] is valid


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_empty_output_is_valid_at_the_lowest_risk(empty):
    assert NoRefusal(detector=FixedDetector(0.9)).scan("p", empty) == (empty, True, -1.0)


def test_none_output_counts_as_empty():
    assert NoRefusal(detector=FixedDetector(0.9)).scan("p", None) == ("", True, -1.0)


def _says_no(conversation):
    return 0.9 if "no" in conversation.response else 0.2


@pytest.mark.parametrize("match_type", ["sentence", MatchType.SENTENCE, Enum("Theirs", {"SENTENCE": "sentence"}).SENTENCE])
def test_sentence_mode_judges_each_sentence(match_type):
    detector = FixedDetector(_says_no)
    assert NoRefusal(match_type=match_type, detector=detector).scan("p", "Fine so far. Then no. And on.")[1:] == (False, 0.6)
    assert [conversation.response for conversation in detector.seen] == ["Fine so far.", "Then no.", "And on."]


def test_full_mode_judges_the_output_once():
    detector = FixedDetector(0.1)
    NoRefusal(match_type="full", detector=detector).scan("p", "One. Two. Three.")
    assert len(detector.seen) == 1


@pytest.mark.parametrize("bad", ["words", "", None, 3, Enum("Theirs", {"WORDS": "words"}).WORDS])
def test_unknown_match_type_names_the_choices(bad):
    with pytest.raises(InputError, match="'full' or 'sentence'"):
        NoRefusal(match_type=bad)


@pytest.mark.parametrize("bad", [0, 1, -1, 2])
def test_thresholds_that_divide_by_zero_or_never_fire_are_errors(bad):
    with pytest.raises(ValueError, match="between 0 and 1"):
        NoRefusal(threshold=bad)


def test_calls_written_for_llm_guard_go_through_or_say_what_to_do():
    NoRefusal(model=None, use_onnx=True, detector=FixedDetector(0.1))
    with pytest.raises(InputError, match="detector="):
        NoRefusal(model=object())


def test_wrong_type_is_an_input_error():
    with pytest.raises(InputError, match="bytes"):
        NoRefusal(detector=FixedDetector(0.1)).scan("p", b"output")
