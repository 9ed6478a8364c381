"""From a text as written to the plain form that models read, sentence by sentence.

The plain form folds what must not change a verdict: letter case, accents on Latin letters, quote and dash variants,
compatibility forms (NFKC, Unicode Standard Annex 15) and invisible characters.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

HEAD_CHARACTERS = 24_000
TAIL_CHARACTERS = 8_000

_VARIANTS = {ord(char): "'" for char in "‘’‚‛ʻʼʽʹ`´′＇＇ꞌ"}
_VARIANTS |= {ord(char): '"' for char in "“”„‟«»″＂"}
_VARIANTS |= {ord(char): "-" for char in "‐‑‒–—―−"}
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)
_ACCENTS = re.compile("[\u0300-\u036f]")
# A sentence ends at a line break, or behind closing punctuation that a space or a wide-script stop follows.
_SENTENCE = re.compile(r"[^\n]*?(?:[.!?…][\"'”’)\]*]*(?=\s)|[。！？｡।؟۔]+|\n|$)", re.DOTALL)
# What the tokenizers of encoders and of chat models take for control tokens when it stands in ordinary text.
_CONTROL_TOKEN = re.compile(r"<(?=\|\w+\|>|/?s>)|\[(?=/?INST\]|(?:CLS|SEP|MASK|PAD|UNK)\])")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence in plain form, and where it stands in the text it comes from."""

    plain: str
    start: int
    end: int


def plain(text: str) -> str:
    """Return the text in plain form: one line, lower case, spaces collapsed."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", _INVISIBLE.sub("", text.translate(_VARIANTS)))
        text = unicodedata.normalize("NFC", _ACCENTS.sub("", text.lower()))
    elif not text.isprintable() or "`" in text:
        text = _INVISIBLE.sub("", text.replace("`", "'"))
    return " ".join(text.lower().split())


def sentences(text: str) -> list[Sentence]:
    """Split a text into its sentences; sentences without a visible character are left out."""
    found = []
    for match in _SENTENCE.finditer(text):
        folded = plain(match.group())
        if folded:
            lead = len(match.group()) - len(match.group().lstrip())
            found.append(Sentence(folded, match.start() + lead, match.start() + len(match.group().rstrip())))
    return found


def clip(text: str) -> tuple[str, int]:
    """Keep the head and the tail of an over-long text.

    Returns the text, and how many characters were cut out behind the head (0 when nothing was).
    """
    surplus = len(text) - HEAD_CHARACTERS - TAIL_CHARACTERS
    if surplus <= 0:
        return text, 0
    return text[:HEAD_CHARACTERS] + "\n" + text[-TAIL_CHARACTERS:], surplus - 1


def inert(text: str) -> str:
    """Keep a text that goes to a server from forging turns: break up control tokens, and replace what UTF-8 can't carry."""
    return _CONTROL_TOKEN.sub(lambda token: f"{token.group()} ", text).encode("utf-8", "replace").decode()
