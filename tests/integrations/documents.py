"""Runs what the adapters' READMEs and the examples show, against a server on loopback."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def snippet_of(package):
    """The one Python example in an adapter's README."""
    [snippet] = re.findall(r"```python\n(.*?)```", (ROOT / "integrations" / package / "README.md").read_text(), re.DOTALL)
    return snippet


def printed(server, *arguments):
    """The lines that Python prints, run with the arguments; the SDKs find the server by its address."""
    found_by = {f"{sdk}_{name}": value for sdk in ("OPENAI", "ANTHROPIC") for name, value in (("BASE_URL", server.url), ("API_KEY", "key"))}
    run = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=True, env={**os.environ, **found_by}
    )
    return run.stdout.splitlines()
