"""What docs/hosts.md shows is run, each snippet where its host is installed."""

import re

import pytest
from documents import ROOT, printed

SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "hosts.md").read_text(), re.DOTALL)
HOSTS = {"haystack": "Paris is the capital of France.", "llama_index": "refusal"}


@pytest.mark.parametrize("host", HOSTS)
def test_a_snippet_prints_what_the_guard_makes_of_a_refusal(host, server):
    pytest.importorskip(host)
    [snippet] = [snippet for snippet in SNIPPETS if f"from {host}" in snippet]
    assert printed(server, "-c", snippet)[-1] == HOSTS[host]
