"""Callbacks that judge every answer of a model, wherever in a chain or an agent it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult

from refusal_guard import Flag, Guard, InputError, Raise, RefusalDetected, report_of
from refusal_guard.clients import check_guard
from refusal_guard.events import tagged
from refusal_guard.streaming import carry

from .bodies import KEY, body_of, record_of
from .errors import langchain_errors

OnRefusal = Literal["flag", "raise"]


# Where apps name the conversation: LangGraph's own name for it, then LangSmith's.
_CONVERSATION = ("thread_id", "session_id", "conversation_id")


@dataclass(frozen=True, slots=True)
class Run:
    """What is known of a run of a model before it answers: what it is asked, and the metadata that comes with it."""

    messages: Sequence[Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def answering(self, response: LLMResult) -> Callable[..., LLMResult]:
        """Return the call that had this response."""

        def answer(*, model: str | None) -> LLMResult:
            return response

        return partial(answer, model=self._named("ls_model_name"))

    def raising(self, error: Exception) -> Callable[..., Any]:
        """Return the call that had this error."""

        def fail(*, model: str | None) -> Any:
            raise error

        return partial(fail, model=self._named("ls_model_name"))

    def told(self) -> AbstractContextManager[None]:
        """Have events say which part of the app asked, and in which conversation."""
        return tagged(route=self._named("route"), conversation_id=self._named(*_CONVERSATION))

    def _named(self, *names: str) -> str | None:
        values = (self.metadata.get(name) for name in names)
        return next((value for value in values if isinstance(value, str) and value.strip()), None)


class _Judge:
    """What the two handlers have in common: the runs under way, and what is told of a judged one."""

    def __init__(self, guard: Guard | None = None, *, on_refusal: OnRefusal = "flag", annotate: bool = False) -> None:
        check_guard(guard)
        if on_refusal not in get_args(OnRefusal):
            raise InputError(f"on_refusal must be one of {', '.join(get_args(OnRefusal))}")
        super().__init__()
        self.guard, self.annotate = guard or Guard(), annotate
        self.raise_error = on_refusal == "raise"
        self._policy = Raise() if self.raise_error else Flag()
        self._runs: dict[UUID, Run] = {}

    def _begin(self, run_id: UUID, messages: Sequence[Any], metadata: dict[str, Any] | None) -> None:
        self._runs[run_id] = Run(messages, metadata or {})

    def _end(self, run_id: UUID) -> Run:
        return self._runs.pop(run_id, Run())

    def _tell(self, response: LLMResult) -> None:
        """Put the report on the messages of a response."""
        report = report_of(response)
        for message in _messages(response):
            carry(message, report)
            if self.annotate:
                message.response_metadata = {**message.response_metadata, KEY: record_of(report)}


class RefusalCallbackHandler(_Judge, BaseCallbackHandler):
    """Judges every answer with its prompt, so that the guard's hooks hear of it, and puts the report on the message (`report_of`).

    `guard` is the embedded model's without one. With `annotate=True` messages tell what happened in `response_metadata["refusal_guard"]`
    too. Events name the model, and from the metadata of the call its `route` and its conversation (`thread_id`, `session_id` or
    `conversation_id`). `on_refusal="raise"` raises RefusalDetectedError as well as callbacks can: out of `invoke` and `batch`, but out of
    streams only when all is out; handlers behind this one do not hear of the answer then. Streams that are abandoned count as nothing.
    Raises InputError for other settings.
    """

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Remember what a chat model is asked."""
        self._begin(run_id, messages[0], metadata)

    def on_llm_start(
        self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, metadata: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Remember what a text model is asked."""
        self._begin(run_id, _said(prompts), metadata)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Judge the answer."""
        run = self._end(run_id)
        if _judged(response):
            return
        with langchain_errors(_message), run.told():
            self.guard.run(run.answering(response), policy=self._policy, messages=run.messages, read=_read)
        self._tell(response)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Judge an error by which the provider refuses."""
        run = self._end(run_id)
        if isinstance(error, Exception) and not isinstance(error, RefusalDetected):
            with _untouched(error), run.told():
                self.guard.run(run.raising(error), messages=run.messages)


class AsyncRefusalCallbackHandler(_Judge, AsyncCallbackHandler):
    """Does what RefusalCallbackHandler does, awaiting the detector; for `ainvoke`, `abatch` and `astream`.

    In calls that block, LangChain swallows what an async handler raises.
    """

    async def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Remember what a chat model is asked."""
        self._begin(run_id, messages[0], metadata)

    async def on_llm_start(
        self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, metadata: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Remember what a text model is asked."""
        self._begin(run_id, _said(prompts), metadata)

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Judge the answer."""
        run = self._end(run_id)
        if _judged(response):
            return
        with langchain_errors(_message), run.told():
            await self.guard.arun(run.answering(response), policy=self._policy, messages=run.messages, read=_read)  # type: ignore[arg-type]
        self._tell(response)

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Judge an error by which the provider refuses."""
        run = self._end(run_id)
        if isinstance(error, Exception) and not isinstance(error, RefusalDetected):
            with _untouched(error), run.told():
                await self.guard.arun(run.raising(error), messages=run.messages)


def _said(prompts: list[str]) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt} for prompt in prompts[:1]]


def _messages(response: LLMResult) -> list[BaseMessage]:
    generations = [generation for answers in response.generations for generation in answers]
    return [generation.message for generation in generations if hasattr(generation, "message")]


def _message(response: Any) -> BaseMessage | None:
    return next(iter(_messages(response)), None) if isinstance(response, LLMResult) else None


def _judged(response: LLMResult) -> bool:
    """Return whether a guarded model has judged a response already."""
    return any(KEY in message.response_metadata for message in _messages(response))


def _read(response: LLMResult) -> dict[str, Any]:
    return body_of([generation for answers in response.generations[:1] for generation in answers], response.llm_output)


@contextmanager
def _untouched(error: Exception) -> Iterator[None]:
    """Take back an error that is raised inside; LangChain raises it, with its traceback as it was."""
    traceback = error.__traceback__
    try:
        yield
    except Exception as raised:
        if raised is not error:
            raise
    finally:
        error.__traceback__ = traceback
