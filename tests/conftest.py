from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from refusal_guard import Guard

# A shared machine may stall at any moment; what a test shows does not depend on its speed.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def guard() -> Guard:
    """The guard a user gets: the model inside the package."""
    return Guard()
