"""What the service takes upon itself, and what it turns away."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass

from ..errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a service; `refusal-guard serve` has an option for each. Raises InputError for one that is not above 0, or infinite.

    A body holds at most `max_body` bytes (else 413) and arrives within `body_timeout` seconds (else 408); a request holds at most
    `max_items` responses (else 422). At most `max_waiting` responses wait for the detector (else 503), and a request is answered within
    `timeout` seconds of its arrival (else 504). With `max_connections` open, further requests are answered with 503 at once.

    `threads` detect at the same time, each up to `batch_size` responses of several requests together; a single request is not divided.
    """

    max_body: int = 4 * 1024**2
    max_items: int = 128
    max_waiting: int = 1_024
    max_connections: int = 1_000
    body_timeout: float = 10.0
    timeout: float = 30.0
    threads: int = os.cpu_count() or 1
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Check every limit."""
        for name, value in asdict(self).items():
            if not 0 < value < math.inf:
                raise InputError(f"{name} must be above 0, and finite")
