"""Events: what is told of every judged response, and to whom."""

from .event import Action, EventSignal, Hook, ScanEvent

__all__ = ["Action", "EventSignal", "Hook", "ScanEvent"]
