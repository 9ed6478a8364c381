"""Hashed word and character n-grams of a text, all in numpy.

One pass over the code points finds the words, hashes every word by prefix sums of a polynomial rolling hash
(Karp and Rabin 1987) and derives from them the features of a linear model (feature hashing: Weinberger et al. 2009).
Training and inference call the same function, so the two can't drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUCKET_BITS = 18
OPENING_WORDS = 24
STEM_LETTERS = 5

_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_SHIFT = np.uint64(64 - BUCKET_BITS)
_SALTS = {
    name: np.uint64(0x632BE59BD9B4E019 * (2 * i + 1) % 2**64)
    for i, name in enumerate(("word", "pair", "triple", "stem", "opening", "char2", "char3", "char4"))
}
# Scripts whose words carry their endings inside (Cyrillic, Arabic, Hangul) or that write without spaces (Han, Kana, Thai).
_FIRST_NON_LATIN = 0x0370


def _is_word_table() -> NDArray[np.bool_]:
    """Mark the code points of the basic plane that belong to a word: letters, digits, apostrophe, any non-Latin script."""
    table = np.zeros(0x10000, dtype=bool)
    for char in "abcdefghijklmnopqrstuvwxyz0123456789'":
        table[ord(char)] = True
    table[0xC0:] = True
    for first, last in ((0x2000, 0x2BFF), (0x3000, 0x303F), (0xD800, 0xF8FF), (0xFE00, 0xFE0F), (0xFF00, 0xFFEF)):
        table[first : last + 1] = False
    table[[0xD7, 0xF7, 0x060C, 0x061B, 0x061F, 0x0964, 0x0965]] = False
    return table


_IS_WORD = _is_word_table()


@dataclass(frozen=True, slots=True)
class Ngrams:
    """The features of one text: a bucket for each n-gram, and the code point at which that n-gram starts."""

    buckets: NDArray[np.int64]
    starts: NDArray[np.int64]


def extract(text: str) -> Ngrams:
    """Return the hashed n-grams of a normalised text; empty arrays when it holds no word."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    in_word = _IS_WORD[np.minimum(points, np.uint64(0xFFFF)).astype(np.int64)]
    edges = np.flatnonzero(np.diff(np.concatenate(([False], in_word, [False]))))
    begins, ends = edges[::2], edges[1::2]
    words = _span_hashes(points, begins, ends)
    stems = _span_hashes(points, begins, np.minimum(ends, begins + STEM_LETTERS))
    pairs = words[:-1] * _BASE + words[1:]
    triples = pairs[:-1] * _BASE + words[2:]
    opening = [_salted(hashes[:OPENING_WORDS], "opening") for hashes in (words, pairs, triples)]
    hashes = [_salted(words, "word"), _salted(pairs, "pair"), _salted(triples, "triple"), _salted(stems, "stem"), *opening]
    starts = [begins, begins[:-1], begins[:-2], begins, *(begins[: len(part)] for part in opening)]
    for size in (2, 3, 4):
        part, at = _character_grams(points, in_word, size)
        hashes.append(_salted(part, f"char{size}"))
        starts.append(at)
    buckets = (np.concatenate(hashes) * _MIX) >> _SHIFT
    return Ngrams(buckets.astype(np.int64), np.concatenate(starts))


def _span_hashes(points: NDArray[np.uint64], begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash each span points[begin:end]: the difference of two prefix sums, shifted back to position zero."""
    powers, inverse = _powers(1 << (len(points) + 1).bit_length())
    sums = np.concatenate((np.zeros(1, dtype=np.uint64), np.cumsum(points * powers[: len(points)], dtype=np.uint64)))
    return (sums[ends] - sums[begins]) * inverse[begins]


@cache
def _powers(count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the powers of the hash base and of its inverse, starting with the first power; all modulo 2^64."""
    inverse = np.uint64(pow(int(_BASE), -1, 2**64))
    return np.cumprod(np.full(count, _BASE), dtype=np.uint64), np.cumprod(np.full(count, inverse), dtype=np.uint64)


def _character_grams(points: NDArray[np.uint64], in_word: NDArray[np.bool_], size: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hash every run of `size` non-Latin characters inside words; returns the hashes and where each starts."""
    count = len(points) - size + 1
    if count <= 0:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    wanted = in_word & (points >= _FIRST_NON_LATIN)
    at = np.flatnonzero(np.logical_and.reduce([wanted[i : i + count] for i in range(size)]))
    hashes = np.zeros(len(at), dtype=np.uint64)
    for i in range(size):
        hashes = hashes * _BASE + points[at + i]
    return hashes, at


def _salted(hashes: NDArray[np.uint64], kind: str) -> NDArray[np.uint64]:
    return (hashes ^ _SALTS[kind]) * _BASE ^ (hashes >> np.uint64(31))
