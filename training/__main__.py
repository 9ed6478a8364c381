"""Make the embedded model: python -m training DATA [--work FOLDER] [--out FOLDER] [--from STEP] [--teacher MODEL] [--bfloat16].

DATA holds train*.jsonl.gz to train on and eval/*.jsonl.gz to report on (never to choose by). The steps leave their results in the
work folder, so a later one can be repeated alone.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from refusal_guard.detectors.embedded.linear import LinearModel

from . import encoder, linear
from .assemble import assemble
from .compare import compare
from .encoder import Round, Words
from .rows import Row, empty_talk, late_refusals, load, load_evaluation, shortened
from .teacher import believed, joined, load_words, save_words, taught

STEPS = ("linear", "encoder", "assemble", "compare")
WORDS = Path(__file__).parent / "words.safetensors"
MODEL = Path(__file__).parents[1] / "src" / "refusal_guard" / "models" / "refusal-v1"
LATE_SHARE = 0.12
EMPTY_TALK = 300
SHORTENED_ROWS = 6_000
# What each round is for, and what was tried beside it: EXPERIMENTS.md.
FIRST_ROUND = Round(epochs=2, run=1, peak=1.0, seed=1)
LAST_ROUND = Round(peak=0.7, seed=7, epochs=2, run=2, trust=0.7)
# Of the public rows that the teacher did not read, this share is seen again in the last round.
PUBLIC_SHARE = 0.25
# How often the last round sees own rows of a kind, by the names of their files: those that are learnt slowest, and most often got wrong.
TIMES = {"same_text": 4, "stance": 2, "premise": 2, "persona": 2, "jailbreak": 2, "korean": 2}


def main() -> None:
    """Run the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--out", type=Path, default=MODEL)
    parser.add_argument("--released", type=Path, default=MODEL, help="model folder whose vocabulary to go on with, if there is one")
    parser.add_argument("--teacher", help="folder or name of all-mpnet-base-v2: fine-tune it anew instead of taking its kept words")
    parser.add_argument(
        "--bfloat16", action="store_true", help="train in bfloat16: takes a third off where the processor multiplies it fast"
    )
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
        cut_off = shortened(training, SHORTENED_ROWS)
        # Without its cache: that would go on with the weights of the first step.
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16, cache_enabled=False):
            if options.teacher:
                save_words(taught(options.teacher, first, training, cut_off), WORDS)
            fine_tune(first, rows, training, load_words(WORDS, [*training, *cut_off]), options.work, options.released)
    if "assemble" in steps:
        assemble(first, options.work / "encoder", rows, options.out)
    if "compare" in steps:
        table, _ = encoder.start(rows, options.released)
        words = table.bert.embeddings.word_embeddings
        figures = compare(options.out, torch.cat((words.known, words.fresh)).detach(), rows, load_evaluation(options.data))
        (options.out / "metrics.json").write_text(json.dumps({"comparison": figures, "rows": counts(rows)}, indent=1) + "\n")


def fine_tune(first: LinearModel, rows: Sequence[Row], training: Sequence[Row], words: Words, work: Path, released: Path) -> None:
    """Run both rounds: all rows by their labels, then the last one beside the teacher."""
    torch.manual_seed(0)
    model, tokenizer = encoder.start(rows, released)
    for loss in encoder.train(model, tokenizer, first, training, FIRST_ROUND):
        print(f"first round: loss {loss:.4f}", flush=True)
    encoder.save(model, tokenizer, work / "encoder-0")
    words = believed(joined(words, encoder.logits(model, tokenizer, first, list(words))))
    for loss in encoder.train(model, tokenizer, first, drawn(training, words), LAST_ROUND, words):
        print(f"last round: loss {loss:.4f}", flush=True)
    encoder.save(model, tokenizer, work / "encoder")


def drawn(training: Sequence[Row], words: Words) -> list[Row]:
    """Return the rows of the last round: those that the teacher read, other own ones, and a share of the other public ones."""
    unread = [row for row in training if row not in words]
    public = [row for row in unread if not row.ours]
    some = random.Random(LAST_ROUND.seed).sample(public, int(PUBLIC_SHARE * len(public)))
    return [copy for row in [*words, *(row for row in unread if row.ours), *some] for copy in [row] * _times(row)]


def _times(row: Row) -> int:
    return max((times for kind, times in TIMES.items() if row.own and kind in row.source), default=1)


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
