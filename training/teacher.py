"""A teacher for the second stage: all-mpnet-base-v2, five times MiniLM-L6's size and eight times its work, on the English rows.

What it says of a row, the encoder learns beside the label (distillation, Hinton et al. 2015, arXiv 1503.02531). Its word on rows that it
was not trained on also mends labels that are wrong.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer, MPNetModel

from refusal_guard.detectors.embedded.linear import LinearModel

from .encoder import WITHOUT_DROPOUT, Classifier, Round, Words, logits, mean_pooled, pretrained_tokenizer, train
from .rows import LABELS, Row

BODY_RATE, HEAD_RATE = 6e-5, 1e-3
# The lowest layers stay as pretrained, which saves a quarter of a step.
_FROZEN = ("embeddings.", *(f"encoder.layer.{i}." for i in range(4)))
_TRAINED_ON = 8_500
_PLAN = Round(peak=1.0, seed=5, trust=0.75)


class Teacher(Classifier):
    """MPNet with mean pooling and a linear layer over the three labels; takes ids of BERT's vocabulary, which MPNet numbers otherwise."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.body = MPNetModel.from_pretrained(source, add_pooling_layer=False, dtype=torch.float32, **WITHOUT_DROPOUT)
        self.head = nn.Linear(self.body.config.hidden_size, len(LABELS))
        self.register_buffer("renumbered", _renumbered(source), persistent=False)
        for name, parameter in self.body.named_parameters():
            parameter.requires_grad_(not name.startswith(_FROZEN))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
        """Return logits, rows x labels in the order of LABELS; MPNet knows no segments."""
        states = self.body(input_ids=self.renumbered[input_ids], attention_mask=attention_mask).last_hidden_state
        return self.head(mean_pooled(states, attention_mask))

    def rates(self) -> list[dict[str, Any]]:
        """Return the optimiser's groups."""
        body = [parameter for parameter in self.body.parameters() if parameter.requires_grad]
        return [{"params": body, "lr": BODY_RATE}, {"params": list(self.head.parameters()), "lr": HEAD_RATE}]


def _renumbered(source: str) -> torch.Tensor:
    """Return MPNet's id of each token of BERT's vocabulary."""
    known = AutoTokenizer.from_pretrained(source).get_vocab()
    special = {"[CLS]": "<s>", "[SEP]": "</s>", "[PAD]": "<pad>"}
    tokens = sorted(pretrained_tokenizer().get_vocab().items(), key=lambda item: item[1])
    return torch.tensor([known.get(special.get(token, token), known["[UNK]"]) for token, _ in tokens])


def taught(source: str, linear: LinearModel, rows: Sequence[Row], unlabelled: Sequence[Row]) -> Words:
    """Fine-tune the teacher; return its word on the project's own English rows, public ones that it was not shown, and unlabelled ones."""
    torch.manual_seed(0)
    english = [row for row in rows if row.lang == "en" and row.response.strip()]
    ours, public = [row for row in english if row.ours], [row for row in english if not row.ours]
    random.Random(_PLAN.seed).shuffle(public)
    model, tokenizer = Teacher(source), pretrained_tokenizer()
    for loss in train(model, tokenizer, linear, [*ours, *public[:_TRAINED_ON]], _PLAN):
        print(f"teacher: loss {loss:.4f}", flush=True)
    read = [*ours, *public[_TRAINED_ON:], *unlabelled]
    return _words(read, logits(model, tokenizer, linear, read).softmax(1))


def save_words(words: Words, file: Path) -> None:
    """Keep a teacher's words under a digest of each row, so that its hour need not be spent again."""
    digests = torch.tensor([row.digest for row in words])
    save_file({"digests": digests, "words": torch.tensor(list(words.values())).half()}, file)


def load_words(file: Path, rows: Sequence[Row]) -> Words:
    """Return the words that `save_words` kept of these rows."""
    kept = load_file(file)
    found = dict(zip(kept["digests"].tolist(), map(tuple, kept["words"].float().tolist()), strict=True))
    return {row: found[digest] for row in rows if (digest := row.digest) in found}


def joined(words: Words, own: torch.Tensor) -> Words:
    """Return the geometric mean of a teacher's words and the encoder's own logits of the same rows: together they err less."""
    said = torch.tensor(list(words.values())).clamp_min(1e-6).log() + own.log_softmax(1)
    return _words(list(words), (said / 2).softmax(1))


def believed(words: Words) -> Words:
    """Return the words without those on which the labels of the project's own rows are the better guide.

    That is where a word contradicts the label, and where only the prompt tells: a word is at a loss there even when it is right. A late
    refusal, which a teacher calls an answer, counts as own too: with its word, the encoder unlearnt them.
    """
    return {
        row: word for row, word in words.items() if not row.ours or (not row.comes_twice and LABELS[word.index(max(word))] == row.label)
    }


def _words(rows: Sequence[Row], probabilities: torch.Tensor) -> Words:
    return dict(zip(rows, map(tuple, probabilities.tolist()), strict=True))
