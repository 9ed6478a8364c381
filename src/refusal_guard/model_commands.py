"""`refusal-guard models`: which detectors there are, and how their files come here and are kept right."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from .detectors.checkpoint import Checkpoint
from .detectors.embedded import DEFAULT_MODEL, MODELS, EmbeddedDetector
from .detectors.hub import CONFIG, TOKENIZER, ModelFiles, fetch, find, how_to_get, verify
from .detectors.quantize import Quantized
from .detectors.spec import PRESETS, EncoderSpec, spec_of
from .errors import RefusalGuardError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_EMBEDDED, _CASCADE = "embedded", "cascade"
_MEGABYTE = 1_000_000


def add_to(commands: _SubParsersAction[ArgumentParser]) -> None:
    """Add the `models` command and its own commands to the command line."""
    models = commands.add_parser(
        "models",
        help="the detectors that can be loaded",
        description="The detectors that can be loaded. Exit code: 0, or 2 for a usage or input error.",
    ).add_subparsers(required=True, metavar="COMMAND")
    each = models.add_parser("list", help="all of them in a table")
    each.add_argument("--json", action="store_true", help="print a JSON array")
    each.set_defaults(run=show_all)
    for name, run, text in (
        ("info", show, "how one is asked, what it calls a refusal, its licence, where its files lie"),
        ("fetch", download, "download one, or what is missing of it, and verify it"),
        ("verify", check, "compare the files of one with their recorded hashes, and its classes with what is expected"),
        ("quantize", quantize, "make its int8 graph, about three times as fast on a CPU (detector int8:NAME)"),
    ):
        one = models.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        one.add_argument("name", metavar="NAME", help="a name of models list, or a checkpoint's folder")
        if run in (download, check):
            kind = one.add_mutually_exclusive_group()
            kind.add_argument("--onnx", action="store_true", help="its ONNX graph (default where torch is not installed)")
            kind.add_argument("--weights", action="store_true", help="its safetensors weights (default where torch is installed)")
        one.set_defaults(run=run)


def show_all(options: Namespace) -> int:
    """Print every detector with its licence, size and place."""
    rows = [_embedded_facts(), _cascade_facts(), *map(_facts, PRESETS.values())]
    if options.json:
        print(json.dumps(rows))
        return 0
    table = Table(show_edge=False, pad_edge=False, show_lines=True)
    for name in ("name", "reads", "calls a refusal", "licence", "MB", "cached"):
        table.add_column(name, overflow="fold")
    for row in rows:
        cells = (row[name] for name in ("name", "inputs", "definition", "licence", "size_mb"))
        table.add_row(*(str(cell or "?") for cell in cells), "yes" if row["path"] else "no")
    Console(soft_wrap=True, highlight=False).print(table)
    return 0


def show(options: Namespace) -> int:
    """Print all that is known of one detector."""
    ours = {_EMBEDDED: _embedded_facts, _CASCADE: _cascade_facts}.get(options.name)
    facts = ours() if ours else _facts(spec_of(options.name))
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):16}{'' if value is None else value}".rstrip())
    if not ours and not facts["path"]:
        print(how_to_get(spec_of(options.name)))
    return 0


def download(options: Namespace) -> int:
    """Download one detector's files and say where they are."""
    if options.name == _EMBEDDED:
        print("embedded comes with the package")
        return 0
    spec = spec_of(options.name)
    if spec.folder:
        print(f"{spec.folder} is on this machine already")
        return 0
    files = fetch(spec, graph=_graph_wanted(spec, options))
    print(f"{spec.name} at revision {files.revision} is in {files.folder}")
    print(f"For a machine without network, copy {files.folder.parents[1]} into its $HF_HOME/hub")
    return 0


def check(options: Namespace) -> int:
    """Verify one detector's files; a file without a recorded hash is named as such."""
    if options.name == _EMBEDDED:
        EmbeddedDetector().verify()
        print(f"all files of {DEFAULT_MODEL} are those recorded")
        return 0
    files = find(spec_of(options.name))
    Checkpoint.read(files)
    weights = [files.graph] if _graph_wanted(files.spec, options) else files.weights
    for name, recorded in verify(files, [files[CONFIG], files[TOKENIZER], *weights]):
        print(f"{name:24}{'as published' if recorded else 'readable; no hash of it is recorded here'}")
    if Quantized.of(files).graph.exists():
        print(f"{'int8 graph':24}as made: {Quantized.of(files).verified()}")
    return 0


def quantize(options: Namespace) -> int:
    """Make one detector's int8 graph."""
    spec = spec_of(options.name)
    graph = Quantized.of(find(spec)).make()
    print(f"{graph} ({graph.stat().st_size / _MEGABYTE:,.0f} MB): name the detector int8:{options.name}")
    return 0


def _graph_wanted(spec: EncoderSpec, options: Namespace) -> bool:
    return bool(options.onnx or (spec.onnx_file and not options.weights and find_spec("torch") is None))


def _facts(spec: EncoderSpec) -> dict[str, Any]:
    files = _found(spec)
    facts = {"name": spec.name} | spec.model_dump(mode="json", exclude={"sha256", "reasons", "temperature"})
    facts["size_mb"] = spec.size_mb or (files and _megabytes(files.folder))
    facts["refusal_labels"], facts["partial_labels"] = sorted(spec.refusal_labels, key=str), sorted(spec.partial_labels, key=str)
    int8 = Quantized.of(files).graph if files else None
    return facts | {"path": files and str(files.folder), "int8": str(int8) if int8 and int8.exists() else None}


def _found(spec: EncoderSpec) -> ModelFiles | None:
    try:
        return find(spec)
    except RefusalGuardError:
        return None


def _embedded_facts() -> dict[str, Any]:
    folder = MODELS / DEFAULT_MODEL
    return {
        "name": _EMBEDDED,
        "inputs": "pair",
        "definition": "declines to do what the user's last request asks; partial refusals are told apart",
        "licence": "Apache-2.0",
        "language": "more than twenty languages",
        "size_mb": _megabytes(folder),
        "threshold": EmbeddedDetector().threshold,
        "path": str(folder),
    }


def _cascade_facts() -> dict[str, Any]:
    minos = _facts(PRESETS["minos"])
    definition = "embedded's, and minos's where embedded is unsure; needs both"
    return _embedded_facts() | {"name": _CASCADE, "definition": definition, "path": minos["path"]}


def _megabytes(folder: Path) -> int:
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / _MEGABYTE)
