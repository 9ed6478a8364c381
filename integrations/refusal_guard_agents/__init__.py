"""Guards agents of the OpenAI Agents SDK: an output guardrail that trips on refusals."""

from __future__ import annotations

from functools import partial
from typing import Any

try:
    from agents import Agent, GuardrailFunctionOutput, OutputGuardrail, RunContextWrapper
except ImportError as error:
    raise ImportError("refusal_guard_agents needs the openai-agents package: pip install 'refusal-guard[agents]'") from error

from refusal_guard import Guard, report_of
from refusal_guard.clients import check_guard

__all__ = ["refusal_guardrail"]


def refusal_guardrail(guard: Guard | None = None, *, name: str = "refusal_guard") -> OutputGuardrail[Any]:
    """Return an output guardrail that trips when an agent's final output is a refusal.

    The run then raises OutputGuardrailTripwireTriggered, and `guardrail_result.output.output_info` is the verdict as plain data. A text is
    judged with what was said in the turn; output that is no text passes. `guard` is the embedded model's without one. Raises InputError
    for another.
    """
    check_guard(guard)
    return OutputGuardrail(guardrail_function=partial(_judged, guard or Guard()), name=name)


async def _judged(guard: Guard, context: RunContextWrapper[Any], agent: Agent[Any], output: Any) -> GuardrailFunctionOutput:
    async def answer(*, model: Any) -> Any:
        return output if isinstance(output, str) else ""

    asked = [item for item in context.turn_input if isinstance(item, dict) and "role" in item]
    model = agent.model if isinstance(agent.model, str) else getattr(agent.model, "model", None)
    report = report_of(await guard.arun(partial(answer, model=model), messages=asked))
    verdict = report.attempts[-1].verdict
    return GuardrailFunctionOutput(output_info=verdict.model_dump(mode="json"), tripwire_triggered=verdict.refused)
