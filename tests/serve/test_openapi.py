"""The OpenAPI document against the running service, by schemathesis: it takes what it says, refuses the rest, and answers as described."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")

from served import Scripted, Served

TOKEN = "s3cret-t0ken"
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


def test_the_service_is_as_its_document_says(tmp_path):
    with Served(Scripted(), token=TOKEN) as served:
        url = str(served.client.base_url.join("/openapi.json"))
        command = [SCHEMATHESIS, "run", url, "--header", f"Authorization: Bearer {TOKEN}", "--max-examples", "40", "--checks", "all"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
