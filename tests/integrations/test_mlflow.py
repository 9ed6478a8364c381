"""The scorer as MLflow calls it: real scorers and feedback; `evaluate` itself needs more than mlflow-skinny."""

import pytest

pytest.importorskip("mlflow.genai.scorers")

from documents import printed, snippet_of
from mlflow.entities import Feedback
from mlflow.genai.scorers import Scorer
from model_server import TEXTS

from refusal_guard import InputError
from refusal_guard_mlflow import refusal_scorer

QUESTION = "What is the capital of France?"
BODY = {"choices": [{"message": {"role": "assistant", "content": "", "refusal": "No."}}]}


def test_the_feedback_has_the_verdict(fixed, detector):
    scorer = refusal_scorer(fixed)
    feedback = scorer.run(inputs={"question": QUESTION}, outputs=TEXTS["refuses"], expectations=None, trace=None)
    assert isinstance(scorer, Scorer)
    assert isinstance(feedback, Feedback)
    assert (scorer.name, feedback.name, feedback.value, feedback.rationale) == ("refusal", "refusal", True, "refusal")
    assert feedback.metadata == {"score": "1.0", "threshold": "0.5", "detector": "fixed"}
    assert detector.seen[0].prompt == QUESTION


@pytest.mark.parametrize(
    ("inputs", "prompt"),
    [(QUESTION, QUESTION), ({"messages": [{"role": "user", "content": QUESTION}]}, QUESTION), ({"depth": 3}, ""), (None, ""), (7, "")],
)
def test_inputs_of_the_usual_shapes_are_read(fixed, detector, inputs, prompt):
    assert refusal_scorer(fixed)(inputs=inputs, outputs=TEXTS["answers"]).value is False
    assert detector.seen[0].prompt == prompt


@pytest.mark.parametrize(
    ("outputs", "refused"),
    [(BODY, True), ([{"role": "assistant", "content": TEXTS["refuses"]}], True), ("", False), (None, False), ({}, False)],
)
def test_outputs_of_the_usual_shapes_are_read(fixed, outputs, refused):
    assert refusal_scorer(fixed)(inputs=QUESTION, outputs=outputs).value is refused


def test_outputs_that_say_nothing_are_an_error(fixed):
    with pytest.raises(InputError):
        refusal_scorer(fixed)(inputs=QUESTION, outputs={"depth": 3})


def test_a_guard_that_is_none_is_told_at_once():
    with pytest.raises(InputError, match="must be a Guard"):
        refusal_scorer("embedded")


def test_the_readmes_example_tells_the_label(server):
    assert printed(server, "-c", snippet_of("refusal_guard_mlflow"))[-1] == "True refusal"
