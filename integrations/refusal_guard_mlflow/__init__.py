"""Scores MLflow's evaluation rows and traces for refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

try:
    from mlflow.entities import Feedback
    from mlflow.genai.scorers import Scorer, scorer
except ImportError as error:
    raise ImportError("refusal_guard_mlflow needs the mlflow-skinny package, or mlflow: pip install 'refusal-guard[mlflow]'") from error

from refusal_guard import Guard, report_of
from refusal_guard.clients import check_guard

__all__ = ["refusal_scorer"]
_PROMPTS = ("prompt", "question", "query", "input", "instruction", "request")


def refusal_scorer(guard: Guard | None = None, *, name: str = "refusal") -> Scorer:
    """Return a scorer for `mlflow.genai.evaluate(scorers=[...])`: its value is True for a refusal.

    The outputs may be a text, messages or the body of a chat API, the inputs a text, or an object with `messages`, or with a `prompt`,
    `question`, `query`, `input`, `instruction` or `request`. The rationale is the label, the metadata hold score, threshold and detector.
    `guard` is the embedded model's without one. Raises InputError for another.
    """
    check_guard(guard)
    judge = guard or Guard()

    def refusal(inputs: Any = None, outputs: Any = None) -> Feedback:
        judged = judge.run(lambda: outputs if outputs else "", **_asked(inputs))
        verdict = report_of(judged).attempts[-1].verdict
        metadata = {field: str(getattr(verdict, field)) for field in ("score", "threshold", "detector")}
        return Feedback(name=name, value=verdict.refused, rationale=verdict.label.value, metadata=metadata)

    return scorer(name=name)(refusal)


def _asked(inputs: Any) -> dict[str, Any]:
    if isinstance(inputs, str):
        return {"prompt": inputs}
    if not isinstance(inputs, Mapping):
        return {}
    if isinstance(inputs.get("messages"), list):
        return {"messages": inputs["messages"]}
    return {"prompt": next((inputs[field] for field in _PROMPTS if isinstance(inputs.get(field), str)), None)}
