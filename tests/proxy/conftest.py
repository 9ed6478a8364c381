"""The proxy that most tests share."""

import pytest
from proxies import CONFIG, running_proxy


@pytest.fixture(scope="session")
def proxy(tmp_path_factory):
    """The address and the key of a proxy that is up."""
    with running_proxy(CONFIG, tmp_path_factory.mktemp("proxy")) as running:
        yield running
