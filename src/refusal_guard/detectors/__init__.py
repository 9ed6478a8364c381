"""Detectors: what they must offer, and how a name becomes one."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from ..conversation import Conversation
from ..errors import InputError
from ..verdict import Detection

BUILT_IN = {"embedded": "refusal_guard.detectors.embedded:EmbeddedDetector"}


class Detector(Protocol):
    """Anything with a name and this one method is a detector; pass the object to Guard.

    A detector may also have a `threshold`, which the guard takes when the caller names none.
    """

    @property
    def name(self) -> str:
        """What verdicts call it."""
        ...

    def detect(self, conversations: Sequence[Conversation]) -> list[Detection | None]:
        """Return a detection for each conversation, in order; None where the detector abstains."""
        ...


def load_detector(spec: str | Path | Detector) -> Detector:
    """Return the detector of a name, of a model folder, or the object itself.

    Raises InputError for an unknown name and ModelError for a folder that holds no usable model.
    """
    if not isinstance(spec, str | Path):
        if not callable(getattr(spec, "detect", None)) or not isinstance(getattr(spec, "name", None), str):
            raise InputError(f"a detector needs a name and a method detect(conversations); {type(spec).__name__} is none")
        return spec
    if str(spec) in BUILT_IN:
        module, _, attribute = BUILT_IN[str(spec)].partition(":")
        return cast(Detector, getattr(import_module(module), attribute)())
    if Path(spec).is_dir():
        from .embedded import EmbeddedDetector

        return EmbeddedDetector(Path(spec))
    raise InputError(f"unknown detector {str(spec)!r}: take one of {', '.join(sorted(BUILT_IN))}, a model folder, or pass an object")
