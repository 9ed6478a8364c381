"""An alternative to the encoder, for comparison: averaged token vectors and a small network, no attention."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .encoder import BATCH, Example, batches
from .rows import LABELS

OPENING_TOKENS = 24
_HIDDEN = 128
_RATE = 1e-3


class StaticModel(nn.Module):
    """Means of the token vectors of the prompt, of the response and of its opening, then two layers."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.vectors = nn.EmbeddingBag.from_pretrained(table.clone(), freeze=False, mode="mean", padding_idx=0, sparse=True)
        self.layers = nn.Sequential(nn.Linear(3 * table.shape[1], _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, len(LABELS)))

    def forward(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits, rows x labels."""
        return self.layers(torch.cat([self.vectors(part) for part in parts], dim=1))


def parts_of(examples: Sequence[Example]) -> list[torch.Tensor]:
    """Return padded ids of the prompts, the responses and their openings."""
    prompts = [item.ids[: len(item.segments) - sum(item.segments)] for item in examples]
    responses = [item.ids[len(prompt) :] for item, prompt in zip(examples, prompts, strict=True)]
    return [_padded(prompts), _padded(responses), _padded([ids[:OPENING_TOKENS] for ids in responses])]


def _padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in rows])


def train(table: torch.Tensor, examples: Sequence[Example], *, epochs: int, seed: int) -> StaticModel:
    """Fit the vectors and the layers."""
    torch.manual_seed(seed)
    model, rng = StaticModel(table), random.Random(seed)
    optimisers = (torch.optim.SparseAdam(model.vectors.parameters(), lr=_RATE), torch.optim.Adam(model.layers.parameters(), lr=_RATE))
    loss_of = nn.CrossEntropyLoss(reduction="none", label_smoothing=0.05)
    for _ in range(epochs):
        for batch in batches(examples, rng):
            each = loss_of(model(parts_of(batch)), torch.tensor([item.label for item in batch]))
            (each * torch.tensor([item.weight for item in batch])).mean().backward()
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad()
    return model.eval()


@torch.inference_mode()
def declines(model: StaticModel, examples: Sequence[Example]) -> NDArray[np.float64]:
    """Return the logit that each row declines."""
    found = [model(parts_of(examples[i : i + BATCH])) for i in range(0, len(examples), BATCH)]
    logits = torch.cat(found).numpy().astype(float)
    return np.logaddexp(logits[:, 1], logits[:, 2]) - logits[:, 0]
