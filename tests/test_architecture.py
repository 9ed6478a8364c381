"""The house rules that a script can check: who imports whom, what is public, how large things get, what an import costs."""

import ast
from pathlib import Path
from types import FunctionType

import pytest
from processes import run_python

import refusal_guard
from refusal_guard import clients, streaming

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "refusal_guard"
INTEGRATIONS = ROOT / "integrations"
ADAPTERS = sorted(INTEGRATIONS.rglob("*.py"))
# What adapters may name: the public names, and what three modules offer to them.
FOR_ADAPTERS = {
    "refusal_guard": refusal_guard.__all__,
    "refusal_guard.clients": clients.__all__,
    "refusal_guard.events": ["tagged"],
    "refusal_guard.streaming": streaming.__all__,
}
MODULES = {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text()) for path in SOURCE.rglob("*.py")}

# Each layer may import itself (where it is one idea), the layers named, and nothing above.
ALLOWED = {
    "text": set(),
    "errors": {"attempts", "verdict"},
    "verdict": set(),
    "conversation": {"errors"},
    "foreign": set(),
    "forks": set(),
    "signals": {"foreign"},
    "attempts": {"errors", "signals", "verdict"},
    "condition": {"errors", "verdict"},
    "policy": {"attempts", "condition", "errors"},
    "responses": {"attempts", "conversation", "errors", "foreign", "signals"},
    "run": {"attempts", "conversation", "errors", "events", "policy", "responses", "signals", "verdict"},
    "events": {"conversation", "errors", "forks", "signals", "verdict"},
    "alerts": {"errors", "events", "forks", "verdict"},
    "detectors": {"conversation", "errors", "forks", "text", "verdict"},
    "guard": {"conversation", "detectors", "errors", "events", "policy", "run", "signals", "verdict"},
    "streaming": {"attempts", "errors", "events", "foreign", "guard", "policy", "responses", "run", "text"},
    "clients": {"attempts", "errors", "guard", "policy", "run", "streaming"},
    "scanner": {"conversation", "detectors", "errors", "events", "guard", "text", "verdict"},
    "files": {"errors"},
    "bulk": {"conversation", "errors", "files", "guard", "verdict"},
    "report": {"bulk", "conversation", "errors", "files", "guard", "verdict"},
    "evaluate": {"errors", "verdict"},
    "testing": {"conversation", "events", "verdict"},
    "serve": {"conversation", "detectors", "errors", "events", "guard", "scanner", "text", "verdict"},
    "evaluate_command": {"bulk", "conversation", "errors", "evaluate", "files", "guard", "verdict"},
    "model_commands": {"detectors", "errors"},
    "alert_demo": {"alerts", "conversation", "errors", "events", "files", "guard", "verdict"},
    "cli": {
        "alert_demo",
        "bulk",
        "conversation",
        "errors",
        "evaluate_command",
        "events",
        "files",
        "guard",
        "model_commands",
        "report",
        "serve",
        "verdict",
    },
    "__init__": {"attempts", "condition", "conversation", "errors", "events", "guard", "policy", "scanner", "verdict"},
}
HEAVY = (
    "torch",
    "transformers",
    "huggingface_hub",
    "onnxruntime",
    "tokenizers",
    "numpy",
    "rich",
    "pyarrow",
    "openai",
    "langchain_core",
    "fastapi",
    "httpx",
    "prometheus_client",
    "opentelemetry",
)


def unit(name):
    """The unit of the house a file belongs to: its module, or its first folder."""
    return name.split("/")[0].removesuffix(".py")


def imported_units(name, tree):
    """The units of refusal_guard that a file imports, at any depth of its code."""
    folders = name.split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = folders[: len(folders) - node.level + 1]
            target = [*base, *(node.module.split(".") if node.module else [])]
            yield from (target[:1] if target else [alias.name for alias in node.names])
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "refusal_guard":
            yield from node.module.split(".")[1:2]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_downwards(name):
    here = unit(name)
    beyond = {target for target in imported_units(name, MODULES[name]) if target != here} - ALLOWED[here]
    assert not beyond, f"{name} may not import {sorted(beyond)}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_in_src_imports_integrations(name):
    modules = [node.module or "" for node in ast.walk(MODULES[name]) if isinstance(node, ast.ImportFrom)]
    assert not [module for module in modules if module.startswith("refusal_guard_")]


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_adapter_is_small_and_uses_what_is_offered(path):
    assert len(path.read_text().splitlines()) <= 200
    used = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [alias.name for node in used if isinstance(node, ast.Import) for alias in node.names]
    assert not [name for name in names if name.startswith("refusal_guard")]
    ours = [
        node for node in used if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("refusal_guard")
    ]
    assert not [alias.name for node in ours for alias in node.names if alias.name not in FOR_ADAPTERS[node.module]]


@pytest.mark.parametrize("package", sorted(path.parent for path in INTEGRATIONS.glob("*/__init__.py")), ids=lambda path: path.name)
def test_an_adapter_is_shipped_typed_and_explained(package):
    assert (package / "README.md").exists()
    assert (package / "py.typed").exists()
    assert f'"integrations/{package.name}"' in (ROOT / "pyproject.toml").read_text()


def test_public_names_are_few_sorted_and_real():
    names = refusal_guard.__all__
    assert names == sorted(names)
    assert len(names) <= 20
    assert all(getattr(refusal_guard, name).__module__.startswith("refusal_guard.") for name in names)
    offered = {name: value for name, value in vars(refusal_guard).items() if not name.startswith("_")}
    assert {name for name, value in offered.items() if isinstance(value, type | FunctionType)} == set(names)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_files_and_functions_stay_small(name):
    assert len((SOURCE / name).read_text().splitlines()) <= 400
    functions = [node for node in ast.walk(MODULES[name]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert not [node.name for node in functions if node.end_lineno - node.lineno + 1 > 60]


def test_the_median_function_is_short():
    functions = [node for tree in MODULES.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    lengths = sorted(node.end_lineno - node.lineno + 1 for node in functions)
    assert lengths[len(lengths) // 2] <= 12


def test_no_mocks_in_the_tests():
    this = Path(__file__)
    used = [path.name for path in (ROOT / "tests").rglob("*.py") if path != this and "unittest.mock" in path.read_text()]
    assert not used


def test_importing_loads_nothing_heavy():
    loaded = run_python(f"import sys, refusal_guard; print([name for name in {HEAVY} if name in sys.modules])")
    assert loaded == ["[]"]


def test_the_command_line_starts_without_what_single_commands_need():
    names = {name for name in HEAVY if name != "rich"} | {"refusal_guard.alerts", "refusal_guard.evaluate"}
    loaded = run_python(f"import sys, refusal_guard.cli; print([name for name in {names} if name in sys.modules])")
    assert loaded == ["[]"]


def test_importing_and_scanning_open_no_socket_and_importing_reads_no_model():
    code = """
import sys
sockets, opened = [], []
def watch(event, arguments):
    if event.startswith("socket."):
        sockets.append(event)
    elif event == "open" and "models" in str(arguments[0]):
        opened.append(arguments[0])
sys.addaudithook(watch)
import refusal_guard
assert not opened, opened
verdict = refusal_guard.Guard().scan("p", "I'm sorry, I can't help with that, although it depends.")
assert verdict.refused and opened
print(sockets)
"""
    assert run_python(code) == ["[]"]
