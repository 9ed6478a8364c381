"""What the encoder reads of a pair: the prompt's two ends and, of a long response, its head, strongest sentence and tail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Encoding, Tokenizer

    from ...text import Sentence

# A token of the vocabulary is rarely longer than this many characters, so longer slices hold nothing that is read.
_CHARACTERS_PER_TOKEN = 12


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """How many tokens of each part the encoder reads."""

    prompt_head: int = 12
    prompt_tail: int = 6
    head: int = 52
    strongest: int = 16
    tail: int = 20

    @property
    def response(self) -> int:
        """Tokens of a response that is read whole."""
        return self.head + self.strongest + self.tail


def encode(
    tokenizer: Tokenizer, prompt: str, spans: Sequence[Sentence], scores: NDArray[np.float64], budget: TokenBudget
) -> tuple[list[int], list[int]]:
    """Return token ids and segment ids (0 prompt, 1 response) of one pair, with the separators of a BERT pair.

    `prompt` is in plain form, `spans` are the response's sentences and `scores` their first-stage scores.
    """
    cls, sep, gap = (_token(tokenizer, name) for name in ("[CLS]", "[SEP]", "[unused0]"))
    asked = _ends(tokenizer, prompt, budget.prompt_head, budget.prompt_tail, gap)
    answered = _response_ids(tokenizer, spans, scores, budget, gap)
    ids = [cls, *asked, sep, *answered, sep]
    return ids, [0] * (len(asked) + 2) + [1] * (len(answered) + 1)


def _token(tokenizer: Tokenizer, name: str) -> int:
    identity = tokenizer.token_to_id(name)
    if identity is None:
        raise ValueError(f"the tokenizer has no token {name}")
    return identity


def _encoded(tokenizer: Tokenizer, text: str) -> Encoding:
    return tokenizer.encode(text, add_special_tokens=False)


def _ends(tokenizer: Tokenizer, text: str, head: int, tail: int, gap: int) -> list[int]:
    reach = _CHARACTERS_PER_TOKEN * (head + tail)
    if len(text) > 2 * reach:
        text = f"{text[:reach]} {text[-reach:]}"
    ids = _encoded(tokenizer, text).ids
    return ids if len(ids) <= head + tail else [*ids[:head], gap, *ids[-tail:]]


def _response_ids(tokenizer: Tokenizer, spans: Sequence[Sentence], scores: NDArray[np.float64], budget: TokenBudget, gap: int) -> list[int]:
    """Head, strongest sentence in between, tail; the whole response where it fits."""
    text = " ".join(span.plain for span in spans)
    first, last, begin = _two_ends(tokenizer, text, budget)
    if first is last and len(first.ids) <= budget.response:
        return first.ids
    head, tail = first.ids[: budget.head], last.ids[-budget.tail :]
    head_end, tail_start = first.offsets[len(head) - 1][1], begin + last.offsets[-len(tail)][0]
    between = _strongest_between(spans, scores, head_end, tail_start)
    if between is None:
        return [*head, gap, *tail]
    middle = _encoded(tokenizer, between[: _CHARACTERS_PER_TOKEN * budget.strongest]).ids[: budget.strongest]
    return [*head, gap, *middle, gap, *tail]


def _two_ends(tokenizer: Tokenizer, text: str, budget: TokenBudget) -> tuple[Encoding, Encoding, int]:
    """Encode the head and the tail of a text, at once where it is short; also returns where the encoded tail begins."""
    if len(text) <= _CHARACTERS_PER_TOKEN * budget.response:
        whole = _encoded(tokenizer, text)
        return whole, whole, 0
    begin = len(text) - _CHARACTERS_PER_TOKEN * budget.tail
    return _encoded(tokenizer, text[: _CHARACTERS_PER_TOKEN * budget.head]), _encoded(tokenizer, text[begin:]), begin


def _strongest_between(spans: Sequence[Sentence], scores: NDArray[np.float64], start: int, end: int) -> str | None:
    """Return the sentence with the highest score that begins between two offsets of the joined text."""
    begins = np.cumsum([0] + [len(span.plain) + 1 for span in spans[:-1]])
    inside = np.flatnonzero((begins >= start) & (begins < end))
    return spans[inside[np.argmax(scores[inside])]].plain if len(inside) else None
