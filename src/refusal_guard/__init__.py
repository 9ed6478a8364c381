"""Scores the output of language models for refusal, offline, and lets an app act on it."""

from .attempts import Report, report_of
from .condition import When
from .conversation import Conversation, Message
from .errors import InputError, RefusalDetected, RefusalGuardError
from .events import ScanEvent
from .guard import Guard
from .policy import Fallback, Flag, Raise, Replace, Retry
from .scanner import NoRefusal
from .verdict import Label, Reason, Verdict

__all__ = [
    "Conversation",
    "Fallback",
    "Flag",
    "Guard",
    "InputError",
    "Label",
    "Message",
    "NoRefusal",
    "Raise",
    "Reason",
    "RefusalDetected",
    "RefusalGuardError",
    "Replace",
    "Report",
    "Retry",
    "ScanEvent",
    "Verdict",
    "When",
    "report_of",
]


def __getattr__(name: str) -> str:
    """Look the version up only when asked: reading the metadata costs a good part of an import."""
    if name == "__version__":
        from importlib.metadata import version

        return version("refusal-guard")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
