"""Make the embedded model: python -m training DATA [--work FOLDER] [--out FOLDER] [--from STEP].

DATA holds train*.jsonl.gz to train on and eval/*.jsonl.gz to report on (never to choose by). The steps leave their results in the
work folder, so a later one can be repeated alone.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from refusal_guard.detectors.embedded.linear import LinearModel
from refusal_guard.text import clip, sentences

from . import encoder, linear
from .assemble import assemble
from .compare import compare
from .rows import Row, empty_talk, late_refusals, load, load_evaluation

STEPS = ("linear", "encoder", "assemble", "compare")
MODEL = Path(__file__).parents[1] / "src" / "refusal_guard" / "models" / "refusal-v1"
LATE_SHARE = 0.06
EMPTY_TALK = 300


@dataclass(frozen=True, slots=True)
class Pool:
    """The training rows, by what a round may want of them."""

    own: list[Row]
    made: list[Row]
    hard: list[Row]
    easy: list[Row]


def everything(pool: Pool, rng: random.Random) -> list[Row]:
    """All rows."""
    return [*pool.own, *pool.made, *pool.hard, *pool.easy]


def mostly_hard(pool: Pool, rng: random.Random) -> list[Row]:
    """All rows but those the first stage is sure and right about, of which four in ten stay."""
    return [*pool.own, *pool.made, *pool.hard, *rng.sample(pool.easy, int(0.4 * len(pool.easy)))]


def mostly_own(pool: Pool, rng: random.Random) -> list[Row]:
    """The own rows, those on premises twice, and 7,500 public ones as they come."""
    premises = [row for row in pool.own if "premise" in row.source]
    public = [*pool.hard, *pool.easy]
    return [*pool.own, *premises, *pool.made[:800], *rng.sample(public, min(7_500, len(public)))]


@dataclass(frozen=True, slots=True)
class Round:
    """One round of fine-tuning: a schedule of `epochs`, of which `run` are run, on the rows that `choose` takes."""

    choose: Callable[[Pool, random.Random], list[Row]]
    epochs: int
    run: int
    peak: float
    seed: int


# What each round is for, and what was tried beside it: EXPERIMENTS.md.
ROUNDS = (Round(everything, 3, 1, 1.0, 1), Round(mostly_hard, 3, 3, 0.9, 11), Round(mostly_own, 1, 1, 0.7, 41))


def main() -> None:
    """Run the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--out", type=Path, default=MODEL)
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
        fine_tune(first, rows, training, options.work)
    if "assemble" in steps:
        assemble(first, options.work / "encoder", rows, options.out)
    if "compare" in steps:
        table, _ = encoder.start(rows)
        words = table.bert.embeddings.word_embeddings
        figures = compare(options.out, torch.cat((words.known, words.fresh)).detach(), rows, load_evaluation(options.data))
        (options.out / "metrics.json").write_text(json.dumps({"comparison": figures, "rows": counts(rows)}, indent=1) + "\n")


def fine_tune(first: LinearModel, rows: Sequence[Row], training: Sequence[Row], work: Path) -> None:
    """Run the rounds and save the checkpoint after each epoch."""
    torch.manual_seed(0)
    model, tokenizer = encoder.start(rows)
    pool = pooled(first, training)
    for plan in ROUNDS:
        chosen = plan.choose(pool, random.Random(plan.seed))
        epochs = encoder.train(model, tokenizer, first, chosen, epochs=plan.epochs, peak=plan.peak, seed=plan.seed)
        for epoch, loss in zip(range(plan.run), epochs, strict=False):
            print(f"{plan.choose.__name__}, epoch {epoch}: loss {loss:.4f}", flush=True)
            encoder.save(model, tokenizer, work / "encoder")


def pooled(first: LinearModel, training: Sequence[Row]) -> Pool:
    """Sort the training rows by where they come from and whether the first stage is sure, and right, about them."""
    own = [row for row in training if row.own]
    made = [row for row in training if row.source in ("late-refusal", "empty-talk")]
    public = [row for row in training if not row.own and row.source not in ("late-refusal", "empty-talk")]
    sure = [easy(first, row) for row in public]
    return Pool(own, made, [r for r, s in zip(public, sure, strict=True) if not s], [r for r, s in zip(public, sure, strict=True) if s])


def easy(first: LinearModel, row: Row) -> bool:
    """Whether the first stage is sure, and right, about a row: the encoder will hardly ever be asked about its like."""
    spans = sentences(clip(row.response)[0])
    if row.label == "partial" or not spans:
        return False
    logit, _ = first.read(spans)
    return logit > 3 if row.label == "refusal" else logit < -4


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
