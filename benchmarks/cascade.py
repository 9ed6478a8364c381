"""What a cascade passes on, costs and gets right: the embedded model in front of a dearer detector.

    python benchmarks/cascade.py [--heavy NAME] [--rows N] [--timed N] [FILE ...]

NAME is what Guard takes ("minos", "protectai", a folder, a URL), or "labels": a second stage that knows the rows' labels, the most that any
could bring. Without FILEs: those of REFUSAL_GUARD_DATA's eval/ folder, else the golden rows; the figures in docs/benchmarks.md and the
default band are from the held-out training rows that `python -m training.rows DATA` writes, with `--heavy labels --rows 4000`. For each
wanted agreement with the second stage the band is chosen on one half of the rows and measured on the other. Partial rows count as refusals.
Times are means of single pairs, the three detectors taking turns on the same rows.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from quality import default_files, labelled

from refusal_guard import Conversation, Guard, Label
from refusal_guard.detectors import Detector
from refusal_guard.detectors.cascade import Cascade, choose_band
from refusal_guard.evaluate import evaluate
from refusal_guard.testing import FixedDetector

RESULTS = Path(__file__).parent / "results" / "cascade.json"
AGREEMENTS = (0.95, 0.98, 0.99, 0.995)
LABELS = "labels"


def read(files: Sequence[Path], count: int, seed: int) -> list[dict[str, Any]]:
    """Return so many rows of all files in a random order that is the same every time."""
    rows = [row for path in files for row in labelled(path) if str(row["response"]).strip()]
    random.Random(seed).shuffle(rows)
    return rows[:count]


def knowing(rows: Sequence[dict[str, Any]]) -> FixedDetector:
    """Return a detector that knows the labels of rows."""
    answers = {(row["prompt"], row["response"]): float(row["label"] != Label.COMPLIANCE) for row in rows}
    return FixedDetector(lambda conversation: answers[conversation.prompt, conversation.response])


def judged(detector: Detector, rows: Sequence[dict[str, Any]]) -> list[tuple[float, bool]]:
    """Return each row's score and whether it is refused, by the detector's own threshold."""
    return [(verdict.score, verdict.refused) for verdict in Guard(detector).scan_many([(row["prompt"], row["response"]) for row in rows])]


def f1(rows: Sequence[dict[str, Any]], verdicts: Sequence[tuple[float, bool]]) -> float | None:
    found = evaluate([row["label"] for row in rows], [float(refused) for _, refused in verdicts], 0.5, partial_counts=True, resamples=0)
    return found.f1.value


def milliseconds(detectors: Sequence[Detector], rows: Sequence[dict[str, Any]]) -> list[float]:
    """Return the mean time of one pair for each detector; they take turns, and the first rows only warm up."""
    taken: list[list[float]] = [[] for _ in detectors]
    warm_up = rows[:3]
    for i, row in enumerate([*warm_up, *rows]):
        conversations = [Conversation.from_pair(row["prompt"], row["response"])]
        for detector, times in zip(detectors, taken, strict=True):
            began = time.perf_counter()
            detector.detect(conversations)
            if i >= len(warm_up):
                times.append((time.perf_counter() - began) * 1_000)
    return [fmean(times) for times in taken]


def measure(cheap: Detector, heavy: Detector, rows: Sequence[dict[str, Any]], timed: int) -> list[dict[str, Any]]:
    """Return the figures of the cascade for each wanted agreement."""
    half = len(rows) // 2
    by_cheap, by_heavy, threshold = judged(cheap, rows), judged(heavy, rows), Guard(cheap).threshold
    measured = rows[half:]
    figures = []
    for wanted in AGREEMENTS:
        scores, reference = [score for score, _ in by_cheap[:half]], [refused for _, refused in by_heavy[:half]]
        choice = choose_band(scores, reference, threshold=threshold, agreement=wanted)
        cascade = Cascade([cheap, heavy], band=choice.band)
        found = judged(cascade, measured)
        passed_on = fmean(choice.band[0] <= score <= choice.band[1] for score, _ in by_cheap[half:])
        agreement = fmean(mine == theirs for (_, mine), (_, theirs) in zip(found, by_heavy[half:], strict=True))
        cost = dict(zip(("cheap", "heavy", "cascade"), milliseconds((cheap, heavy, cascade), measured[:timed]), strict=True))
        quality = {"cheap": f1(measured, by_cheap[half:]), "heavy": f1(measured, by_heavy[half:]), "cascade": f1(measured, found)}
        figures.append(
            {"wanted": wanted, "band": choice.band, "passed_on": passed_on, "agreement": agreement, "milliseconds": cost, "f1": quality}
        )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--heavy", default="minos", metavar="NAME")
    parser.add_argument("--rows", type=int, default=2_000, metavar="N")
    parser.add_argument("--timed", type=int, default=100, metavar="N", help="on how many rows the detectors are timed")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    files = options.files or (default_files()[1:] or default_files())  # the golden rows only where there are no others
    rows = read(files, options.rows, seed=0)
    cheap = Guard("embedded").detector
    heavy = knowing(rows) if options.heavy == LABELS else Guard(options.heavy).detector
    figures = measure(cheap, heavy, rows, options.timed)
    for found in figures:
        band, cost, quality = found["band"], found["milliseconds"], found["f1"]
        print(f"wanted {found['wanted']:.3f}: band {band[0]:.4f}-{band[1]:.4f} passes {found['passed_on']:.1%} on,", end=" ")
        print(f"agreement {found['agreement']:.4f},", " ".join(f"F1 {name} {value:.3f}" for name, value in quality.items()), end=", ")
        print(" ".join(f"{name} {value:.1f} ms" for name, value in cost.items()), flush=True)
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    results[options.heavy] = {"rows": len(rows), "figures": figures}
    options.out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
