"""A run of a model as callbacks see it: what is known before it answers, and how its result or its error is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult

from refusal_guard.events import tagged

from .bodies import KEY, body_of

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


def messages_of(response: LLMResult) -> list[BaseMessage]:
    """Return the messages of a result; a text model has none."""
    generations = [generation for answers in response.generations for generation in answers]
    return [generation.message for generation in generations if hasattr(generation, "message")]


def message_of(response: Any) -> BaseMessage | None:
    """Return the first message of a result; None when there is none, or no result."""
    return next(iter(messages_of(response)), None) if isinstance(response, LLMResult) else None


def judged(response: LLMResult) -> bool:
    """Return whether a guarded model has judged a response already."""
    return any(KEY in message.response_metadata for message in messages_of(response))


def read_result(response: LLMResult) -> dict[str, Any]:
    """Return what a guard reads of a result."""
    return body_of([generation for answers in response.generations[:1] for generation in answers], response.llm_output)


@contextmanager
def untouched(error: Exception) -> Iterator[None]:
    """Take back an error that is raised inside; LangChain raises it, with its traceback as it was."""
    traceback = error.__traceback__
    try:
        yield
    except Exception as raised:
        if raised is not error:
            raise
    finally:
        error.__traceback__ = traceback
