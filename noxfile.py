"""Environments of their own: the built wheel, and hosts whose pins clash with each other."""

import nox

nox.options.sessions = ["wheel", "gorget", "llm_guard"]
TESTS = ["pytest>=8.3", "hypothesis>=6.100"]
CONFORMANCE = "tests/conformance"


@nox.session
def wheel(session: nox.Session) -> None:
    """Run the tests against the built wheel, and show that it needs no extra and no torch."""
    folder = session.create_tmp()
    session.run("pip", "wheel", "-q", "--no-deps", "-w", folder, ".")
    session.run("python", "tests/wheel_contents.py", folder)
    session.install("-q", "--find-links", folder, "--no-index", "--no-deps", "refusal-guard")
    session.install("-q", "refusal-guard", *TESTS, "httpx>=0.27", "pyarrow>=15", "--find-links", folder)
    session.run("pytest", "-q", "-p", "no:cacheprovider")


@nox.session
def gorget(session: nox.Session) -> None:
    """The scanner in gorget's scan_output, the maintained continuation of LLM Guard."""
    session.install("-q", "gorget==0.5.0", ".", *TESTS)
    session.run("pytest", "-q", CONFORMANCE, *session.posargs)


@nox.session(python="3.11")
def llm_guard(session: nox.Session) -> None:
    """The scanner in LLM Guard's own scan_output; it pins transformers 4 and Python below 3.13."""
    session.install("-q", "torch==2.13.0")
    session.install("-q", "llm-guard==0.3.16", ".", *TESTS)
    session.run("pytest", "-q", CONFORMANCE, *session.posargs)
