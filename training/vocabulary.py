"""Adds tokens for other languages to MiniLM's English vocabulary.

The English vocabulary splits a Korean word into a dozen letters: the encoder then sees a third of a response, and none of it as words.
The new tokens start as the mean of the old pieces they replace, or as an earlier model learnt them.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from refusal_guard.text import plain

from .rows import Row

NEW_TOKENS = 9_000
_RARE = 5
_LONGEST_WORD = 48


def extend(base: Tokenizer, rows: Sequence[Row]) -> tuple[Tokenizer, list[str]]:
    """Return a WordPiece tokenizer with the base vocabulary and new tokens learnt from the rows that are not English."""
    texts = [plain(text) for row in rows if row.lang != "en" for text in (row.prompt, row.response)]
    vocabulary = json.loads(base.to_str())["model"]["vocab"]
    learner = _with_text_rules(Tokenizer(models.WordPiece({}, unk_token="[UNK]")))
    learner.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=14_000, min_frequency=6, limit_alphabet=6_000))
    learnt = [token for token, _ in sorted(learner.get_vocab().items(), key=lambda item: item[1])]
    counts = Counter(character for text in texts for character in text if character > "\u0250")
    common = [char for char, count in counts.most_common() if count >= _RARE and char.isalpha()]
    letters = [form for char in common for form in ((char,) if _is_han(char) else (char, f"##{char}"))]
    fresh = [token for token in dict.fromkeys([*letters, *learnt]) if token not in vocabulary][:NEW_TOKENS]
    vocabulary |= {token: len(vocabulary) + i for i, token in enumerate(fresh)}
    return _with_text_rules(_word_piece(vocabulary)), fresh


def initial_vectors(base: Tokenizer, fresh: Sequence[str], table: torch.Tensor) -> torch.Tensor:
    """Return a start vector for each new token: the mean of the base tokens it would have been split into."""
    vectors = []
    for token in fresh:
        ids = base.encode(token.removeprefix("##"), add_special_tokens=False).ids
        vectors.append(table[ids].mean(dim=0) if ids else table.mean(dim=0))
    return torch.stack(vectors)


def learnt_vectors(encoder: Path) -> torch.Tensor:
    """Return the token vectors of an exported encoder, scaled back from int8."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(encoder).graph.initializer}
    name = next(name for name in found if name.endswith("word_embeddings.weight_quantized"))
    base = name.removesuffix("_quantized")
    centred = found[name].astype(np.float32) - found[f"{base}_zero_point"].astype(np.float32)
    return torch.from_numpy(centred * found[f"{base}_scale"])


def _word_piece(vocabulary: dict[str, int]) -> Tokenizer:
    return Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=_LONGEST_WORD))


def _with_text_rules(tokenizer: Tokenizer) -> Tokenizer:
    """Split at spaces, punctuation and Han characters, and over-long words anywhere; `text.plain` has folded case and accents."""
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    pieces = pre_tokenizers.Split(Regex(f".{{1,{_LONGEST_WORD}}}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), pieces])
    return tokenizer


def _is_han(char: str) -> bool:
    return unicodedata.name(char, "").startswith("CJK")
