"""The errors of refusal-guard.

RefusalGuardError
├── InputError(ValueError)           what was handed over is no conversation, row, file or setting
├── MissingExtraError(ImportError)   an optional dependency is not installed
├── DetectorError                    a detector failed or answered nonsense
│   ├── EndpointError                a server can't be reached, refuses the request or answers something else
│   └── ModelError                   a model folder is missing, incomplete or altered
└── RefusalDetected                  the response was refused and the caller asked to be told so by an exception

No message holds the text of a prompt or a response.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

    from .attempts import Report
    from .verdict import Verdict


class RefusalGuardError(Exception):
    """Base class: catching it catches everything this library raises on purpose."""


class InputError(RefusalGuardError, ValueError):
    """The input is not what the call takes; the message says what it takes."""


class MissingExtraError(RefusalGuardError, ImportError):
    """A feature needs an optional dependency; `extra` names what to install."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'refusal-guard[{extra}]'")
        self.extra = extra


class DetectorError(RefusalGuardError):
    """A detector failed; `detector` is its name and `__cause__` what it raised."""

    def __init__(self, message: str, *, detector: str) -> None:
        super().__init__(message)
        self.detector = detector


class EndpointError(DetectorError):
    """A server did not do its part; `status` is its HTTP status, None when it did not answer. Never holds a key or what was sent."""

    def __init__(self, message: str, *, detector: str, status: int | None = None) -> None:
        super().__init__(message, detector=detector)
        self.status = status


class ModelError(DetectorError):
    """A model can't be used; `path` is its folder."""

    def __init__(self, message: str, *, detector: str, path: Path) -> None:
        super().__init__(message, detector=detector)
        self.path = path


class RefusalDetected(RefusalGuardError):
    """The response is a refusal: `verdict` says why, `response` is what came (None: the provider raised), `report` what was tried."""

    def __init__(self, verdict: Verdict, *, response: Any = None, report: Report | None = None) -> None:
        super().__init__(f"the response was judged a {verdict.label} (score {verdict.score:.3f}, threshold {verdict.threshold:.3f})")
        self.verdict = verdict
        self.response = response
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the verdict, not by the message, so that it comes whole out of another process."""
        return type(self), (self.verdict,), vars(self)


def problems(error: ValidationError) -> str:
    """Return what is wrong with which field, by its path, without the values."""
    return "; ".join(f"{'.'.join(map(str, item['loc']))} {item['msg']}".strip() for item in error.errors(include_input=False))
