"""Make the embedded model: python -m training DATA [--work FOLDER] [--out FOLDER] [--from STEP].

DATA holds train*.jsonl.gz to train on and eval/*.jsonl.gz to report on (never to choose by). The steps leave their results in the
work folder, so a later one can be repeated alone.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from refusal_guard.detectors.embedded.linear import LinearModel

from . import encoder, linear
from .assemble import assemble
from .compare import compare
from .rows import Row, empty_talk, late_refusals, load, load_evaluation

STEPS = ("linear", "encoder", "assemble", "compare")
MODEL = Path(__file__).parents[1] / "src" / "refusal_guard" / "models" / "refusal-v1"
LATE_SHARE = 0.06
EMPTY_TALK = 300


@dataclass(frozen=True, slots=True)
class Round:
    """A round of fine-tuning: `run` of the `epochs` that the learning rate is planned for, on the own rows and some of the public ones.

    `trust` is how much the label of a public row counts against what the encoder says of it.
    """

    public_share: float
    epochs: int
    run: int
    peak: float
    seed: int
    trust: float = 1.0


# What each round is for, and what was tried beside it: EXPERIMENTS.md.
FIRST_ROUND = Round(public_share=1.0, epochs=2, run=1, peak=1.0, seed=1)
LAST_ROUND = Round(public_share=0.3, epochs=1, run=1, peak=0.7, seed=7, trust=0.7)


def main() -> None:
    """Run the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--out", type=Path, default=MODEL)
    parser.add_argument("--released", type=Path, default=MODEL, help="model folder whose vocabulary to go on with, if there is one")
    parser.add_argument("--from", dest="first", choices=STEPS, default=STEPS[0])
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    rows = load(options.data)
    training = [row for row in rows if not row.held_out]
    training += late_refusals(training, LATE_SHARE, random.Random(0)) + empty_talk(EMPTY_TALK, random.Random(0))
    steps = STEPS[STEPS.index(options.first) :]
    if "linear" in steps:
        save_linear(linear.fit(training), options.work)
    first = load_linear(options.work)
    if "encoder" in steps:
        fine_tune(first, rows, training, options.work, options.released)
    if "assemble" in steps:
        assemble(first, options.work / "encoder", rows, options.out)
    if "compare" in steps:
        table, _ = encoder.start(rows, options.released)
        words = table.bert.embeddings.word_embeddings
        figures = compare(options.out, torch.cat((words.known, words.fresh)).detach(), rows, load_evaluation(options.data))
        (options.out / "metrics.json").write_text(json.dumps({"comparison": figures, "rows": counts(rows)}, indent=1) + "\n")


def fine_tune(first: LinearModel, rows: Sequence[Row], training: Sequence[Row], work: Path, released: Path) -> None:
    """Run both rounds, the second from where the first ended."""
    torch.manual_seed(0)
    model, tokenizer = encoder.start(rows, released)
    for name, plan in (("encoder-0", FIRST_ROUND), ("encoder", LAST_ROUND)):
        chosen = drawn(training, plan)
        losses = encoder.train(model, tokenizer, first, chosen, epochs=plan.epochs, peak=plan.peak, seed=plan.seed, trust=plan.trust)
        for epoch, loss in zip(range(plan.run), losses, strict=False):
            print(f"{name}, epoch {epoch}: loss {loss:.4f}", flush=True)
            encoder.save(model, tokenizer, work / name)


def drawn(training: Sequence[Row], plan: Round) -> list[Row]:
    """Return the rows of a round: those written or made here, and a share of the public ones."""
    public = [row for row in training if not row.ours]
    ours = [row for row in training if row.ours]
    return [*ours, *random.Random(plan.seed).sample(public, int(plan.public_share * len(public)))]


def counts(rows: Sequence[Row]) -> dict[str, int]:
    """Return how many rows went into the model, and how many were held out to choose by."""
    held_out, own = sum(row.held_out for row in rows), sum(row.own for row in rows)
    return {"training": len(rows) - held_out, "held_out": held_out, "own": own}


def save_linear(model: LinearModel, work: Path) -> None:
    """Keep the first stage in the work folder."""
    values: dict[str, Any] = {name: getattr(model, name) for name in model.__slots__}
    (work / "linear.pickle").write_bytes(pickle.dumps(values))


def load_linear(work: Path) -> LinearModel:
    """Read what `save_linear` kept."""
    return LinearModel(**pickle.loads((work / "linear.pickle").read_bytes()))


if __name__ == "__main__":
    main()
