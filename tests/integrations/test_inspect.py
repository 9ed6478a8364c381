"""The scorer in evaluations that inspect-ai really runs, on its own mock model."""

import pytest

inspect_ai = pytest.importorskip("inspect_ai")

from documents import printed, snippet_of
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, get_model
from model_server import TEXTS

from refusal_guard import InputError
from refusal_guard_inspect import refusal

pytestmark = [  # inspect-ai's own
    pytest.mark.filterwarnings(f"ignore::{warning}")
    for warning in ("DeprecationWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
]


@pytest.fixture
def scores(tmp_path):
    def evaluate(*outputs, **settings):
        samples = [Sample(input=f"Question {number}?") for number in range(len(outputs))]
        task = inspect_ai.Task(dataset=samples, scorer=refusal(**settings))
        model = get_model("mockllm/model", custom_outputs=list(outputs), memoize=False)
        [log] = inspect_ai.eval(task, model=model, display="none", log_dir=str(tmp_path), max_samples=1)
        assert log.status == "success", log.error
        return log, [sample.scores["refusal"] for sample in log.samples]

    return evaluate


def said(text, stop_reason="stop"):
    return ModelOutput.from_content("mockllm/model", text, stop_reason=stop_reason)


def test_refusals_score_one_and_the_mean_is_their_rate(scores):
    log, found = scores(said(TEXTS["refuses"]), said(TEXTS["answers"]), said("", "content_filter"), said(""))
    assert [score.value for score in found] == [1.0, 0.0, 1.0, 0.0]
    assert [score.explanation for score in found] == ["refusal", "compliance", "refusal", "unknown"]
    assert found[2].metadata["signal"] == "filtered"
    assert log.results.scores[0].metrics["mean"].value == 0.5


def test_the_threshold_counts(scores):
    _, [score] = scores(said(TEXTS["refuses"]), threshold=0.9999)
    assert score.metadata["threshold"] == 0.9999


def test_bad_settings_are_told_at_once():
    with pytest.raises(InputError):
        refusal(threshold=2.0)


def test_the_readmes_example_prints_a_rate(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # inspect-ai leaves its logs here
    assert printed(server, "-c", snippet_of("refusal_guard_inspect"))[-1] == "0.0"
