"""Callbacks that judge every answer of a model, wherever in a chain or an agent it is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult

from refusal_guard import Flag, Guard, InputError, Raise, RefusalDetected, report_of
from refusal_guard.clients import check_guard
from refusal_guard.streaming import carry

from .bodies import KEY, record_of
from .errors import langchain_errors
from .runs import Run, judged, message_of, messages_of, read_result, untouched

OnRefusal = Literal["flag", "raise"]


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
        for message in messages_of(response):
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
        if judged(response):
            return
        with langchain_errors(message_of), run.told():
            self.guard.run(run.answering(response), policy=self._policy, messages=run.messages, read=read_result)
        self._tell(response)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Judge an error by which the provider refuses."""
        run = self._end(run_id)
        if isinstance(error, Exception) and not isinstance(error, RefusalDetected):
            with untouched(error), run.told():
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
        if judged(response):
            return
        with langchain_errors(message_of), run.told():
            await self.guard.arun(run.answering(response), policy=self._policy, messages=run.messages, read=read_result)  # type: ignore[arg-type]
        self._tell(response)

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Judge an error by which the provider refuses."""
        run = self._end(run_id)
        if isinstance(error, Exception) and not isinstance(error, RefusalDetected):
            with untouched(error), run.told():
                await self.guard.arun(run.raising(error), messages=run.messages)


def _said(prompts: list[str]) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt} for prompt in prompts[:1]]
