"""Python processes of their own, for what a process does as a whole: what it imports, how it ends, what its forks find."""

import os
import subprocess
import sys

import pytest

forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def run_python(code):
    """Return the words that the code prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True).stdout.split()
