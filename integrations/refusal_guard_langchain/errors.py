"""The one exception, which LangChain's own retries, fallbacks and parsers know how to handle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.exceptions import LangChainException, OutputParserException
from langchain_core.messages import BaseMessage

from refusal_guard import RefusalDetected, Report, Verdict
from refusal_guard.streaming import carry

try:
    from langchain_core.exceptions import ModelRefusalError
except ImportError:  # langchain-core before 1.7.5 has no word for refusals

    class ModelRefusalError(LangChainException):  # type: ignore[no-redef]
        """Stands in for the exception of later versions."""


class RefusalDetectedError(RefusalDetected, OutputParserException, ModelRefusalError):
    """The model refused: `verdict` says why, `response` and `raw_message` are its message, `report` is what was tried.

    It is a `refusal_guard.RefusalDetected`, an `OutputParserException`, and, from langchain-core 1.7.5 on, a `ModelRefusalError`.
    """

    def __init__(self, verdict: Verdict, *, response: Any = None, report: Report | None = None) -> None:
        super().__init__(verdict, response=response, report=report)
        self.args = RefusalDetected(verdict).args  # without the link to help with parsers that LangChain adds
        self.raw_message = response if isinstance(response, BaseMessage) else None


@contextmanager
def langchain_errors(message_of: Callable[[Any], BaseMessage | None]) -> Iterator[None]:
    """Raise a refusal that is detected inside as LangChain knows it; `message_of` finds the model's message in the response."""
    try:
        yield
    except RefusalDetectedError:
        raise
    except RefusalDetected as error:
        told = RefusalDetectedError(error.verdict, response=message_of(error.response), report=error.report)
        raise (told if error.report is None else carry(told, error.report)) from error.__cause__
