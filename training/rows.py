"""Labelled rows: where they come from, how they are split, and how they are varied for training.

`python -m training.rows DATA > FILE` writes the public held-out rows, to choose a cascade's band on.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from refusal_guard.text import plain, sentences

OWN_ROWS = Path(__file__).parent / "data"
_ENDINGS = Path(__file__).parent / "endings.jsonl"
LABELS = ("compliance", "partial", "refusal")
# Sources of the rows that `late_refusals` and `empty_talk` make; the labels of those of `shortened` are guesses.
MADE = ("late-refusal", "empty-talk")
_SAME_TEXT = "own/same_text_"
# Templates, labels with more errors than others, and partial rows, which every source defines in its own way, count less.
_WEAK_SOURCES = {
    "synthetic-capability-refusal": 0.5,
    "synthetic-policy-refusal": 0.5,
    "synthetic-hard-negative": 0.5,
    "safety-refusal-stability": 0.6,
}
_PUBLIC_PARTIAL = 0.5
# Sources whose refusals all have one reason; the public sets do not name it row by row.
_IMPLIED_REASONS = {
    "synthetic-capability-refusal": "cannot",
    "synthetic-policy-refusal": "should_not",
    "grounded-refusal": "cannot",
    "cite-or-abstain": "cannot",
    "cipherchat": "should_not",
    "jailbreakbench-artifacts": "should_not",
    "refusal-direction": "should_not",
    "safedecoding": "should_not",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled pair; `weight` is how much it counts in training."""

    prompt: str
    response: str
    label: str
    source: str
    lang: str
    reason: str | None = None
    weight: float = 1.0

    @property
    def own(self) -> bool:
        """Whether the project wrote this row itself."""
        return self.source.startswith("own/")

    @property
    def ours(self) -> bool:
        """Whether the project wrote or made this row, and so is sure of its label."""
        return self.own or self.source in MADE

    @property
    def comes_twice(self) -> bool:
        """Whether the same response stands elsewhere with the opposite label, so that only the prompt tells."""
        return self.source.startswith(_SAME_TEXT)

    @property
    def held_out(self) -> bool:
        """Whether the row belongs to the tenth that is never trained on: all rows of one prompt go the same way.

        Texts that come twice are all trained on: apart, one would mislead about the other.
        """
        return not self.comes_twice and _sha256(plain(self.prompt)[:80])[0] % 10 == 0

    @property
    def digest(self) -> int:
        """A signed 64-bit number that tells the row from others, and nothing of its text."""
        return int.from_bytes(_sha256(f"{self.prompt}\0{self.response}")[:8], "big", signed=True)


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def load(folder: Path) -> list[Row]:
    """Read every train*.jsonl(.gz) of a folder and the project's own rows."""
    found = [_row(raw, raw["source"]) for path in sorted(folder.glob("train*.jsonl*")) for raw in read_jsonl(path)]
    return found + load_own()


def load_own() -> list[Row]:
    """Read the rows written for this project."""
    return [_row(raw, f"own/{path.stem}") for path in sorted(OWN_ROWS.glob("*.jsonl")) for raw in read_jsonl(path)]


def load_evaluation(folder: Path) -> dict[str, list[Row]]:
    """Read eval/*.jsonl(.gz) of a folder, by file; rows whose label rests on something else than declining are left out."""
    found = {path.name.split(".")[0]: list(read_jsonl(path)) for path in sorted((folder / "eval").glob("*.jsonl*"))}
    apart = ("off_topic_answer", "no_refusal_wording")
    return {name: [_row(raw, name) for raw in rows if not (raw.get("category") or "").endswith(apart)] for name, rows in found.items()}


def read_jsonl(path: Path) -> Iterator[dict[str, str]]:
    """Yield the objects of a JSON Lines file, plain or gzip."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _row(raw: dict[str, str], source: str) -> Row:
    implied = _IMPLIED_REASONS.get(source) if raw["label"] != "compliance" else None
    return Row(
        prompt=raw["prompt"],
        response=raw["response"],
        label=raw["label"],
        source=source,
        lang=raw.get("lang", ""),
        reason=raw.get("reason") or implied,
        weight=_PUBLIC_PARTIAL if raw["label"] == "partial" else _WEAK_SOURCES.get(source, 1.0),
    )


def late_refusals(rows: Iterable[Row], share: float, rng: random.Random) -> list[Row]:
    """Append a short refusal to long answers of the same language: the row becomes partial.

    Public sets hold hardly any response that declines after hundreds of words, and a detector that never saw one reads only openings.
    Half of the endings, where the language has some, say plainly that the response stops there.
    """
    rows = list(rows)
    written = _by_language((ending["lang"], ending["text"]) for ending in read_jsonl(_ENDINGS))
    endings = _by_language((row.lang, row.response) for row in rows if row.label == "refusal" and 30 < len(row.response) < 300)
    long_answers = [row for row in rows if row.label == "compliance" and len(row.response) > 800 and row.lang in endings]
    chosen = rng.sample(long_answers, int(share * len(long_answers)))
    kinds = {lang: (found, written.get(lang, found)) for lang, found in endings.items()}
    return [_with_ending(row, rng.choice(rng.choice(kinds[row.lang])), rng) for row in chosen]


def _by_language(texts: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for lang, text in texts:
        found.setdefault(lang, []).append(text)
    return found


def empty_talk(count: int, rng: random.Random) -> list[Row]:
    """Return responses that say nothing, such as a broken model's: repeated words, letters, numbers and signs are no refusals."""
    scripts = [
        "abcdefghijklmnopqrstuvwxyz",
        "абвгдежзиклмнопрст",
        "אבגדהוזחטיכלמנסע",
        "ابتثجحخدذرزسشص",
        "กขคงจฉชซญดต",
        "あいうえおかきくけこ",
    ]
    scripts += ["가나다라마바사아자차카", "अआइईउऊकखगघ", "的一是不了人我在有他", "0123456789", ".,;:-_=+*#/", "😀🎉🔥👍✨"]
    found = []
    for _ in range(count):
        letters = rng.choice(scripts)
        words = ["".join(rng.choices(letters, k=rng.randrange(1, 9))) for _ in range(rng.choice((1, 3, 30)))]
        text = rng.choice((" ", "", "\n")).join(rng.choices(words, k=rng.choice((1, 5, 60, 400))))
        found.append(Row(prompt="", response=text, label="compliance", source=MADE[1], lang="", weight=0.5))
    return found


def shortened(rows: Iterable[Row], count: int) -> list[Row]:
    """Return English responses cut off within, as a stream or a limit of tokens leaves them, for a teacher to say what they are.

    They go by the label of the whole response, so responses that do both are left out. Which rows are cut, and where, hangs on their
    digests: more rows change few of them.
    """
    long = [row for row in rows if row.lang == "en" and row.label != "partial" and row.response.count(" ") > 20]
    return [_cut_off(row) for row in sorted(long, key=lambda row: row.digest)[:count]]


def _cut_off(row: Row) -> Row:
    words = row.response.split(" ")
    least, most = max(6, len(words) // 8), len(words) * 4 // 5
    return replace(row, response=" ".join(words[: least + row.digest % (most - least)]), source="shortened")


def _with_ending(row: Row, ending: str, rng: random.Random) -> Row:
    spans = sentences(row.response)
    cut = spans[rng.randrange(len(spans) // 2, len(spans))].end
    return replace(row, response=f"{row.response[:cut]}\n\n{ending}", label="partial", source=MADE[0], weight=0.5)


def print_held_out(folder: Path) -> None:
    """Print the held-out rows of a folder as JSON Lines."""
    for row in load(folder):
        if row.held_out and not row.own:
            print(json.dumps({"prompt": row.prompt, "response": row.response, "label": row.label}))


if __name__ == "__main__":
    print_held_out(Path(sys.argv[1]))
