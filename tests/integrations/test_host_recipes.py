"""What docs/hosts.md shows is run, each snippet where its host is installed."""

import re

import pytest
from documents import ROOT, printed

SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "hosts.md").read_text(), re.DOTALL)
HOSTS = {
    "haystack": "Paris is the capital of France.",
    "llama_index": "refusal",
    "guardrails": "Paris is the capital of France.",
    "nemoguardrails": "The model refused.",
}


@pytest.mark.parametrize("host", HOSTS)
def test_a_snippet_prints_what_the_guard_makes_of_a_refusal(host, server, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # Guardrails AI imports LiteLLM, which would fetch it
    pytest.importorskip(host)
    [snippet] = [snippet for snippet in SNIPPETS if f"from {host}" in snippet]
    assert printed(server, "-c", snippet)[-1] == HOSTS[host]
