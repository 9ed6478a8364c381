"""The middleware for agents: judges what the model answers, and flags, raises, asks again, replaces or ends."""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, Literal, NotRequired

from langchain.agents.middleware import (
    AgentMiddleware,
    AgentState,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    TracePolicy,
    hook_config,
    omit_payload,
)
from langchain.agents.middleware.types import OmitFromInput
from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.outputs import ChatGeneration
from langgraph.runtime import Runtime
from langgraph.types import Command

from refusal_guard import Fallback, Flag, Guard, InputError, Raise, Replace, Retry, report_of
from refusal_guard.clients import check_guard
from refusal_guard.streaming import Policy, Step, carry

from .bodies import KEY, body_of, message_from, record_of
from .calls import name_of
from .errors import langchain_errors

OnRefusal = Literal["flag", "raise", "retry", "replace", "end"]
NUDGE = "Please answer the request. If a part of it can't be answered, answer the rest and say which part is left out."
REPLACEMENT = "The request could not be answered."


class RefusalGuardState(AgentState[Any]):
    """The state of a guarded agent: `refusal_guard` has a record for each answer of the model.

    A record is the report of the guarded call as plain data (`outcome`, `stopped`, `models`, `usage`, and `attempts` with their verdicts),
    and the `message_id` of the answer. It holds no text.
    """

    refusal_guard: NotRequired[Annotated[list[dict[str, Any]], OmitFromInput, operator.add]]


class RefusalGuardMiddleware(AgentMiddleware[RefusalGuardState, Any, Any]):
    """Judges every answer of an agent's model with the conversation; the state's `refusal_guard` shows what happened.

    `on_refusal` says what becomes of a refusal: "flag" leaves it; "raise" raises RefusalDetectedError, so that a ModelFallbackMiddleware
    listed before this one asks the next model; "retry" says `nudge` to the model and asks again, up to `max_retries` times, and leaves
    what is refused still; "replace" puts `replacement` in its place; "end" does so too, and ends the agent at once. A policy in its place
    combines them, as `Retry(1, nudge="...").then(Raise())` does. Messages with tool calls pass. What a provider declares, or refuses by an
    error, is a refusal like one in words. `guard` is the embedded model's without one. Raises InputError for other settings.
    """

    state_schema = RefusalGuardState
    trace_policy = TracePolicy(process_inputs=omit_payload)

    def __init__(
        self,
        *,
        guard: Guard | None = None,
        on_refusal: OnRefusal | Policy = "flag",
        max_retries: int = 1,
        nudge: str = NUDGE,
        replacement: str = REPLACEMENT,
    ) -> None:
        super().__init__()
        check_guard(guard)
        policies: dict[OnRefusal, Policy] = {
            "flag": Flag(),
            "raise": Raise(),
            "retry": Retry(max_retries, nudge=nudge),
            "replace": Replace(replacement),
            "end": Replace(replacement),
        }
        policy = policies.get(on_refusal) if isinstance(on_refusal, str) else on_refusal
        if not isinstance(policy, Policy):
            raise InputError(f"on_refusal must be a policy, or one of {', '.join(policies)}")
        if any(isinstance(step, Fallback) for step in policy.steps):
            raise InputError("an agent falls back by a ModelFallbackMiddleware, listed before this one, which is to raise")
        self.guard, self._ends = guard or Guard(), on_refusal == "end"
        self._policy = policy.adapted(_adapted)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ExtendedModelResponse[Any]:
        """Ask the model, and do what is to be done about a refusal."""
        with langchain_errors(_answer):
            return _told(self.guard.run(_asking(request, handler, _carrying), policy=self._policy, **_context(request)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ExtendedModelResponse[Any]:
        """Do what `wrap_model_call` does, awaiting."""
        with langchain_errors(_answer):
            return _told(await self.guard.arun(_asking(request, handler, _acarrying), policy=self._policy, **_context(request)))

    @hook_config(can_jump_to=["end"])
    def after_model(self, state: RefusalGuardState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """End the agent where the answer was replaced and it is to end then."""
        return {"jump_to": "end"} if self._ends and state["refusal_guard"][-1]["outcome"] == "replaced" else None


def _adapted(step: Step) -> Step:
    """Turn a text that stands in for an answer into an answer."""
    return Replace(partial(_replaced, step), when=step.when) if isinstance(step, Replace) else step


def _context(request: ModelRequest[Any]) -> dict[str, Any]:
    return {"messages": _before(request), "read": _read}


def _before(request: ModelRequest[Any]) -> list[BaseMessage]:
    system: list[BaseMessage] = [] if request.system_message is None else [request.system_message]
    return system + list(request.messages)


def _asking(request: ModelRequest[Any], handler: Callable[..., Any], carrying: Callable[..., Any]) -> Callable[..., Any]:
    """Return the call that `Guard.run` makes; what is added to the messages is said to the model, and does not get into the state."""

    def ask(*, model: str | None, messages: list[Any] | None = None, temperature: float | None = None) -> Any:
        added: list[Any] = convert_to_messages((messages or [])[len(_before(request)) :])
        asked = request.override(messages=[*request.messages, *added]) if added else request
        if temperature is not None:
            asked = asked.override(model_settings={**asked.model_settings, "temperature": temperature})
        return carrying(handler(asked))

    return partial(ask, model=name_of(request.model))


def _carrying(response: ModelResponse[Any]) -> ModelResponse[Any]:
    """Return a response with the report that its answer carries, if it does: then it is judged already."""
    try:
        return carry(response, report_of(_answer(response)))
    except InputError:
        return response


async def _acarrying(response: Awaitable[ModelResponse[Any]]) -> ModelResponse[Any]:
    return _carrying(await response)


def _answer(response: ModelResponse[Any] | None) -> AIMessage | None:
    messages = [] if response is None else response.result
    return next((message for message in reversed(messages) if isinstance(message, AIMessage)), None)


def _read(response: ModelResponse[Any]) -> dict[str, Any]:
    answer = _answer(response)
    return body_of([] if answer is None else [ChatGeneration(message=answer)])


def _replaced(step: Replace, refused: ModelResponse[Any] | None) -> ModelResponse[Any]:
    answer = _answer(refused)
    instead = message_from(step.instead_of(answer))
    return ModelResponse(result=[instead if answer is None else instead.model_copy(update={"id": answer.id})])


def _told(response: ModelResponse[Any]) -> ExtendedModelResponse[Any]:
    answer = _answer(response)
    record = {"message_id": None if answer is None else answer.id, **record_of(report_of(response))}
    return ExtendedModelResponse(response, Command(update={KEY: [record]}))
