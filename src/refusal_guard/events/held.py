"""Holds back the event of a response whose end is yet to come: a stream is told of once, as it was judged last."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .delivery import Parcel
from .emitter import Outlet

_OF_THE_OPENING = ("model", "route", "conversation_id", "attempt")
_HANDED_OVER = ("answered", "flagged")


class Held:
    """Lets events of attempts that came to an end through, and holds the one of a response that was handed over until its end is judged.

    When the stream is let go unread, what its opening was judged is told, unless nothing of it was (`forget`).
    """

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._parcel: Parcel | None = None
        self._telling = True

    def put(self, parcel: Parcel) -> None:
        """Take a parcel. A second one about the same response replaces the first, but keeps whose call it was."""
        if self._parcel is not None:
            parcel = _continued(self._parcel, parcel)
        self._parcel, self._telling = parcel, True
        if parcel.event.action not in _HANDED_OVER:
            self.release()

    def forget(self) -> None:
        """Tell nothing of what is held, unless the end is judged after all."""
        self._telling = False

    def release(self, **changed: Any) -> None:
        """Send what is held, with fields that are known better in the end."""
        parcel, self._parcel = self._parcel, None
        if parcel is not None:
            self._outlet.put(_changed(parcel, changed))

    def __del__(self) -> None:
        """Tell of a stream that nobody read to its end."""
        if self._telling:
            self.release()


def _changed(parcel: Parcel, fields: dict[str, Any]) -> Parcel:
    return replace(parcel, event=parcel.event.model_copy(update=fields))


def _continued(opening: Parcel, parcel: Parcel) -> Parcel:
    kept = {name: known for name in _OF_THE_OPENING if (known := getattr(opening.event, name)) is not None}
    return replace(_changed(parcel, kept), context=opening.context)
