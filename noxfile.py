"""Environments of their own: the built wheel, and hosts whose pins clash with each other."""

import os
import shutil

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = [
    "wheel",
    "encoders",
    "gorget",
    "llm_guard",
    "openai",
    "anthropic",
    "langchain",
    "hosts",
    "recipes",
    "litellm_proxy",
    "serve",
    "prometheus",
]
PIP = "virtualenv"  # for pip itself, or where pip takes a smaller torch than uv would
TESTS = ["pytest>=8.3", "pytest-xdist>=3.6", "hypothesis>=6.100"]
LOCAL = ["httpx>=0.27", "huggingface-hub>=1.31", "onnx>=1.17", "opentelemetry-sdk>=1.38", "prometheus-client>=0.20", "pyarrow>=15"]
CONFORMANCE = "tests/conformance"
ENCODERS = "tests/encoders"
SERVE = "tests/serve"
INTEGRATIONS = "tests/integrations"
OPENAI = {"1": "openai==1.109.1", "2": "openai==2.54.0", "3": "openai>=3,<4"}  # 1 and 2 are on httpx, 3 is on httpx2
ANTHROPIC = {"0": "anthropic==0.125.0", "1": "anthropic==1.0.0", "2": "anthropic>=2.14,<3"}  # 0 is on httpx, 1 and 2 are on httpx2

# 1.4 is what there was before LangChain had a word for refusals (langchain-core 1.7.5).
LANGCHAIN = {"1.4": ["langchain==1.4.7", "langchain-core==1.7.2"], "1.5": ["langchain>=1.5,<2"]}
HOSTS = {"agents_sdk": "agents", "pydantic_ai": "pydantic-ai,openai", "inspect": "inspect,openai", "mlflow": "mlflow"}  # and their extras
RECIPES = {
    "haystack": "haystack-ai>=3.4,<4",
    "llama_index": "llama-index-core>=0.14,<0.15",
    "guardrails": "guardrails-ai>=0.11,<0.12",
    "nemoguardrails": "nemoguardrails>=0.24,<0.25",
}


@nox.session(venv_backend=PIP)
def wheel(session: nox.Session) -> None:
    """Run the tests against the built wheel, and show that it needs no extra and no torch."""
    folder = session.create_tmp()
    session.run("pip", "wheel", "-q", "--no-deps", "-w", folder, ".")
    session.run("python", "tests/wheel_contents.py", folder)
    session.install("-q", "--find-links", folder, "--no-index", "--no-deps", "refusal-guard")
    session.install("-q", "refusal-guard", *TESTS, *LOCAL, "--find-links", folder)
    session.run("pytest", "-q", "-n", "2", "-p", "no:cacheprovider")


@nox.session(venv_backend=PIP)
def encoders(session: nox.Session) -> None:
    """The torch and ONNX backends on tiny checkpoints that the tests train, and how much of their code that reaches."""
    session.install("-q", "torch==2.13.0")
    session.install("-q", ".[transformers,onnx,int8]", *TESTS, "coverage>=7.10")
    options = f"--rcfile={ENCODERS}/coverage.ini"
    session.run("coverage", "run", options, "-m", "pytest", "-q", ENCODERS, *session.posargs, env={"HF_HUB_OFFLINE": "1"})
    session.run("coverage", "combine", "-q", options)
    session.run("coverage", "report", options)


@nox.session
def gorget(session: nox.Session) -> None:
    """The scanner in gorget's scan_output, the maintained continuation of LLM Guard."""
    session.install("-q", "gorget==0.5.0", ".", *TESTS)
    session.run("pytest", "-q", CONFORMANCE, *session.posargs)


@nox.session(python="3.11", venv_backend=PIP)
def llm_guard(session: nox.Session) -> None:
    """The scanner in LLM Guard's own scan_output; it pins transformers 4 and Python below 3.13."""
    session.install("-q", "torch==2.13.0")
    session.install("-q", "llm-guard==0.3.16", ".", *TESTS)
    session.run("pytest", "-q", CONFORMANCE, *session.posargs)


@nox.session
@nox.parametrize("release", [nox.param(release, id=major) for major, release in OPENAI.items()])
def openai(session: nox.Session, release: str) -> None:
    """The guarded client with each major version of the SDK, its types, and the hosts it works in."""
    guarded_client(session, "openai", release, "langchain-openai>=1", "langsmith>=0.4")


@nox.session
@nox.parametrize("release", [nox.param(release, id=major) for major, release in ANTHROPIC.items()])
def anthropic(session: nox.Session, release: str) -> None:
    """The guarded client with each major version of the SDK, and its types."""
    guarded_client(session, "anthropic", release)


def guarded_client(session: nox.Session, sdk: str, *packages: str) -> None:
    """Run the tests of an SDK's adapter, and both type checkers over what a user writes."""
    session.install("-q", *packages, ".[remote]", *TESTS, "mypy>=1.13", "pyright>=1.1")
    session.run("pytest", "-q", "-n", "2", INTEGRATIONS, "-k", f"test_{sdk}", *session.posargs)
    types, python = f"{INTEGRATIONS}/{sdk}_types.py", f"{session.virtualenv.bin}/python"
    session.run("mypy", "--strict", "--python-executable", python, types)
    session.run("pyright", "--pythonpath", python, types)


@nox.session
@nox.parametrize("release", [nox.param(release, id=name) for name, release in LANGCHAIN.items()])
def langchain(session: nox.Session, release: list[str]) -> None:
    """The callbacks, the parser, the guarded model and the middleware with both generations of LangChain."""
    session.install("-q", *release, ".", *TESTS, "langchain-classic>=1", "langchain-openai>=1")
    session.run("pytest", "-q", INTEGRATIONS, "-k", "test_langchain", *session.posargs)


@nox.session
@nox.parametrize("host", [nox.param(host, id=host) for host in HOSTS])
def hosts(session: nox.Session, host: str) -> None:
    """The small adapters, each in its host; MLflow's scorers run with pandas, which mlflow-skinny does not bring."""
    session.install("-q", f".[{HOSTS[host]}]", *TESTS, "pandas>=2")
    session.run("pytest", "-q", f"{INTEGRATIONS}/test_{host}.py", *session.posargs)


@nox.session
@nox.parametrize("host", [nox.param(package, id=host) for host, package in RECIPES.items()])
def recipes(session: nox.Session, host: str) -> None:
    """What docs/hosts.md shows, each snippet in the host it is for."""
    session.install("-q", host, ".", *TESTS)
    session.run("pytest", "-q", f"{INTEGRATIONS}/test_host_recipes.py", *session.posargs)


@nox.session
def litellm_proxy(session: nox.Session) -> None:
    """Guarded clients, guardrails and the hook with a real LiteLLM proxy, offline: its configuration has the answers of its models."""
    session.install("-q", ".[anthropic,litellm,openai,serve]", *TESTS)
    session.run("pytest", "-q", "tests/proxy", f"{INTEGRATIONS}/test_litellm.py", *session.posargs)


@nox.session
def serve(session: nox.Session) -> None:
    """The HTTP service with nothing but its own extra, and its OpenAPI document by schemathesis."""
    session.install("-q", ".[serve]", *TESTS, "httpx>=0.27", "schemathesis>=4.5")
    session.run("pytest", "-q", SERVE, *session.posargs)


@nox.session
def prometheus(session: nox.Session) -> None:
    """The rules of deploy/ with the real promtool, and a real Prometheus that scrapes an app until its alert fires."""
    if shutil.which("promtool") is None:
        if os.geteuid() or shutil.which("apt-get") is None:
            session.skip("promtool is missing: install the package prometheus")
        session.run("apt-get", "update", "-q", external=True)
        session.run("apt-get", "install", "-qy", "--no-install-recommends", "prometheus", external=True)
    session.install("-q", ".[prometheus]", *TESTS)
    session.run("pytest", "-q", "tests/test_deploy.py", *session.posargs)
    session.run("python", "benchmarks/prometheus.py")
