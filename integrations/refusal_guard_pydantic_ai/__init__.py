"""Guards pydantic-ai: an output validator that asks again, and a predicate by which a FallbackModel goes on to the next model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

try:
    from pydantic_ai import ModelRetry, RunContext
    from pydantic_ai.messages import ModelResponse
except ImportError as error:
    raise ImportError("refusal_guard_pydantic_ai needs the pydantic-ai-slim package: pip install 'refusal-guard[pydantic-ai]'") from error

from refusal_guard import Guard, report_of
from refusal_guard.clients import check_guard

__all__ = ["refusal_validator", "refuses"]
NUDGE = "Please answer the request. If a part of it can't be answered, answer the rest and say which part is left out."


def refusal_validator(guard: Guard | None = None, *, nudge: str = NUDGE) -> Callable[[RunContext[Any], Any], Awaitable[Any]]:
    """Return an output validator, for `agent.output_validator`, that says `nudge` to the model when it refuses, and has it asked again.

    The agent's `retries` bound that. Texts are judged, with the prompt; structured output and what is still arriving pass. `guard` is the
    embedded model's without one. Raises InputError for another.
    """
    check_guard(guard)
    judge = guard or Guard()

    async def validate(context: RunContext[Any], output: Any) -> Any:
        async def answer(*, model: Any) -> Any:
            return output

        if not isinstance(output, str) or context.partial_output:
            return output
        asked = context.prompt if isinstance(context.prompt, str) else None
        judged = await judge.arun(partial(answer, model=context.model.model_name), prompt=asked)
        if report_of(judged).attempts[-1].verdict.refused:
            raise ModelRetry(nudge)
        return output

    return validate


def refuses(guard: Guard | None = None) -> Callable[[ModelResponse], bool]:
    """Return a predicate on responses, for `FallbackModel(..., fallback_on=[...])`; tool calls pass. Raises InputError for a bad guard."""
    check_guard(guard)
    judge = guard or Guard()

    def refused(response: ModelResponse) -> bool:
        message = {"role": "assistant", "content": response.text, "tool_calls": response.tool_calls}
        body = {"model": response.model_name, "choices": [{"message": message, "finish_reason": response.finish_reason}]}
        return report_of(judge.run(lambda: body)).attempts[-1].verdict.refused

    return refused
