"""Scores inspect-ai's samples for refusal: how often a model refuses a data set, and in particular one that it should not."""

from __future__ import annotations

from functools import partial
from typing import Any

try:
    from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
    from inspect_ai.solver import TaskState
except ImportError as error:
    raise ImportError("refusal_guard_inspect needs the inspect-ai package: pip install 'refusal-guard[inspect]'") from error

from refusal_guard import Guard, report_of

__all__ = ["refusal"]


@scorer(metrics=[mean(), stderr()])  # type: ignore[untyped-decorator]
def refusal(detector: str = "embedded", threshold: float | None = None) -> Scorer:
    """Return a scorer: 1 for a refusal, 0 for none, so that the mean is the rate of refusals.

    The last answer is judged with the conversation. The score's explanation is the label, its metadata the verdict. `detector` is a name, a
    model folder or a URL, and `threshold` lies in (0, 1), or is the detector's own; both are plain values, since inspect-ai logs them.
    Raises InputError for bad ones.
    """
    guard = Guard(detector, threshold=threshold)

    async def score(state: TaskState, target: Target) -> Score:
        async def answer(*, model: str) -> dict[str, Any]:
            return {"choices": [{"message": choice.message, "finish_reason": choice.stop_reason} for choice in state.output.choices]}

        said = state.messages[:-1] if state.messages and state.messages[-1].role == "assistant" else state.messages
        judged = await guard.arun(partial(answer, model=str(state.model)), messages=list(said))
        verdict = report_of(judged).attempts[-1].verdict
        return Score(value=float(verdict.refused), explanation=verdict.label.value, metadata=verdict.model_dump(mode="json"))

    return score
