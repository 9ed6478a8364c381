"""The scorer in evaluations that inspect-ai really runs, its models behind the server on loopback."""

import gc

import pytest

inspect_ai = pytest.importorskip("inspect_ai")

from documents import printed, snippet_of
from inspect_ai.dataset import Sample
from inspect_ai.model import get_model

from refusal_guard import InputError
from refusal_guard_inspect import refusal

WARNINGS = ("DeprecationWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
pytestmark = [pytest.mark.filterwarnings(f"ignore::{warning}") for warning in WARNINGS]  # inspect-ai's own


@pytest.fixture
def scores(server, tmp_path):
    def evaluate(*answers, **settings):
        server.script.extend(answers)
        samples = [Sample(input=f"Question {number}?") for number in range(len(answers))]
        model = get_model("openai/any", base_url=server.url, api_key="key", memoize=False, responses_api=False)
        task = inspect_ai.Task(dataset=samples, scorer=refusal(**settings))
        [log] = inspect_ai.eval(task, model=model, display="none", log_dir=str(tmp_path), max_samples=1)
        assert log.status == "success", log.error
        return log, [sample.scores["refusal"] for sample in log.samples]

    yield evaluate
    gc.collect()  # connections that inspect-ai leaves open


def test_refusals_score_one_and_the_mean_is_their_rate(scores):
    log, found = scores("refuses", "answers", "filters", "empty")
    assert [score.value for score in found] == [1.0, 0.0, 1.0, 0.0]
    assert [score.explanation for score in found] == ["refusal", "compliance", "refusal", "unknown"]
    assert found[2].metadata["signal"] == "filtered"
    assert log.results.scores[0].metrics["mean"].value == 0.5


def test_the_threshold_counts(scores):
    _, [score] = scores("refuses", threshold=0.9999)
    assert score.metadata["threshold"] == 0.9999


def test_bad_settings_are_told_at_once():
    with pytest.raises(InputError):
        refusal(threshold=2.0)


def test_the_readmes_example_prints_a_rate(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # inspect-ai leaves its logs here
    server.script.extend(["refuses"] * 2)  # inspect-ai asks once before, to see whether the server knows the Responses API
    assert printed(server, "-c", snippet_of("refusal_guard_inspect"))[-1] == "1.0"
