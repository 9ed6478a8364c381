"""Events: what is told of every judged response, and to whom.

A hook is any function that takes one ScanEvent: `Guard(hooks=[hook])`. Hooks for logs are here; those for metrics and traces, which need
an extra, are in `refusal_guard.events.prometheus` and `refusal_guard.events.otel`.
"""

from .delivery import flush
from .emitter import Emitter, Outlet, tagged, told_of
from .event import Action, EventSignal, Hook, ScanEvent
from .held import Held
from .logging import LoggingHook

__all__ = ["Action", "Emitter", "EventSignal", "Held", "Hook", "LoggingHook", "Outlet", "ScanEvent", "flush", "tagged", "told_of"]
