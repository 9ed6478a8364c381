"""Quality of detectors on labelled files: F1, precision, recall, false-positive rate, AUROC, calibration, with 95 % intervals.

    python benchmarks/quality.py [FILE ...] [--detector NAME ...]

Without FILEs: tests/data/golden.jsonl and, where REFUSAL_GUARD_DATA names a folder, the files of its eval/ folder. A file holds
rows with prompt, response and label. Detectors are what Guard takes; the phrase lists of installed peers join them by themselves.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers import installed_phrase_lists

from refusal_guard import Guard, NoRefusal
from refusal_guard.evaluate import evaluate
from refusal_guard.files import open_rows

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "quality.json"
GOLDEN = HERE.parent / "tests" / "data" / "golden.jsonl"
LLM_GUARD_CASES = GOLDEN.with_name("llm_guard_cases.jsonl")
CONFORMANCE = "LLM Guard's cases"
# Rows whose label rests on something else than declining are reported apart: fluent answers to another question, and
# human "refusals" that hold no refusal wording.
APART = ("off_topic_answer", "no_refusal_wording")


def default_files() -> list[Path]:
    folder = os.environ.get("REFUSAL_GUARD_DATA")
    return [GOLDEN, *(sorted((Path(folder) / "eval").glob("*.jsonl*")) if folder else [])]


def labelled(path: Path) -> list[dict[str, Any]]:
    return [record.row for record in open_rows(str(path)) if record.row is not None]


def measure(guard: Guard, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the metrics of one guard on one set of rows, with partial rows left out and counted."""
    verdicts = guard.scan_many([(row["prompt"], row["response"]) for row in rows])
    labels, scores = [row["label"] for row in rows], [verdict.score for verdict in verdicts]
    return {
        "threshold": guard.threshold,
        "partial_left_out": evaluate(labels, scores, guard.threshold).model_dump(),
        "partial_counted": evaluate(labels, scores, guard.threshold, partial_counts=True).model_dump(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--detector", action="append", metavar="NAME")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    guards = {name: Guard(name) for name in options.detector or ["embedded"]}
    guards |= {name: Guard(detector, threshold=0.5) for name, detector in installed_phrase_lists().items()}
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    for path in options.files or default_files():
        rows = labelled(path)
        kept = [row for row in rows if not str(row.get("category") or "").endswith(APART)]
        name = path.name.split(".")[0]
        for detector, guard in guards.items():
            results.setdefault(name, {})[detector] = measure(guard, kept)
            if len(kept) < len(rows):
                results.setdefault(f"{name} (all rows)", {})[detector] = measure(guard, rows)
            figures = results[name][detector]["partial_left_out"]
            print(
                f"{name:24} {detector:24} n={figures['rows']:5}", *(_show(figures, key) for key in ("f1", "precision", "recall")), end=" "
            )
            print(_show(figures, "false_positive_rate"), _show(figures, "auroc"), flush=True)
    results[CONFORMANCE] = exact_risks()
    print(CONFORMANCE, results[CONFORMANCE])
    options.out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def exact_risks() -> dict[str, int]:
    """Count on how many of LLM Guard's own test cases the scanner's validity, and its risk to the decimal, are theirs."""
    scanner = NoRefusal()
    cases = [json.loads(line) for line in LLM_GUARD_CASES.read_text(encoding="utf-8").splitlines()]
    found = [scanner.scan("", case["output"]) for case in cases]
    return {
        "cases": len(cases),
        "same_validity": sum(valid is case["valid"] for (_, valid, _), case in zip(found, cases, strict=True)),
        "same_risk": sum(risk == case["risk"] for (_, _, risk), case in zip(found, cases, strict=True)),
    }


def _show(figures: dict[str, Any], key: str) -> str:
    value = figures[key]["value"]
    return f"{key}=-" if value is None else f"{key}={value:.3f}"


if __name__ == "__main__":
    main()
