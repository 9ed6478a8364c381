"""Events as log records, with the standard library."""

from __future__ import annotations

import logging

from .event import ScanEvent

_LOGGER = logging.getLogger("refusal_guard.events")


class LoggingHook:
    """Logs each event: refusals and what could not be judged as warnings, the rest as information.

    The message names the label, the score and what was done; the record's `refusal_guard` attribute (`extra`) is the event as a dict,
    without the fields that are None. `logger` is "refusal_guard.events" without one. Handlers and levels are the app's.
    """

    def __init__(self, logger: logging.Logger | logging.LoggerAdapter[logging.Logger] = _LOGGER) -> None:
        self._logger = logger

    def __call__(self, event: ScanEvent) -> None:
        """Log an event."""
        level = logging.WARNING if event.refused or event.not_run else logging.INFO
        if self._logger.isEnabledFor(level):
            fields = event.model_dump(mode="json", exclude_none=True)
            message, values = "%s (score %.3f), %s", (event.label, event.score, event.action)
            self._logger.log(level, message, *values, extra={"refusal_guard": fields})
