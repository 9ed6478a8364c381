"""Scores the output of language models for refusal, offline, and lets an app act on it."""

from importlib.metadata import version

from .conversation import Conversation, Message
from .errors import InputError, RefusalDetected, RefusalGuardError
from .guard import Guard
from .scanner import NoRefusal
from .verdict import Label, Reason, Verdict

__all__ = [
    "Conversation",
    "Guard",
    "InputError",
    "Label",
    "Message",
    "NoRefusal",
    "Reason",
    "RefusalDetected",
    "RefusalGuardError",
    "Verdict",
]
__version__ = version("refusal-guard")
