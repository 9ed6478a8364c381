"""A published encoder classifier as a detector: windows in, probabilities out. What runs the network is a backend's affair."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Unpack

import numpy as np

from ..errors import DetectorError
from ..forks import ForkLock
from ..verdict import Detection, Label, Reason
from .checkpoint import Checkpoint
from .hub import CONFIG, TOKENIZER, ModelFiles, default_cache, find, verify
from .spec import EncoderSpec, ReadingOptions, spec_of
from .windows import Reading, WindowReader

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..conversation import Conversation

# Tokens of a batch of equal lengths. A longer text fills a core alone, and a batch of such texts only takes memory.
_CPU_BATCH_TOKENS = 1_024
GPU_BATCH_TOKENS = 16_384
"""Tokens of a padded batch on a GPU."""


class Network(Protocol):
    """A loaded model: token ids and mask, both [texts, tokens], to logits [texts, classes]."""

    def __call__(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the logits."""
        ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything a detection needs in memory; read-only, so threads share it."""

    files: ModelFiles
    checkpoint: Checkpoint
    reader: WindowReader
    network: Network


class EncoderDetector(ABC):
    """Scores conversations with an encoder classifier; made as TransformersDetector or OnnxDetector.

    `model` is a preset's name, a folder with a refusal_guard.json, or an EncoderSpec; `cache` a Hugging Face cache folder other
    than the machine's. The further settings change the spec's: `context_turns`, `windows`, `max_tokens`, `revision`. The model is
    read at the first detection, or by `load`, and never downloaded.

    Raises InputError for a bad setting, MissingExtraError when a library is missing, and ModelError, when the model is read, if its
    files are missing or are not what the spec describes.
    """

    def __init__(self, model: EncoderSpec | str | Path, *, cache: Path | None = None, **reading: Unpack[ReadingOptions]) -> None:
        self.spec = spec_of(model).changed(**reading)
        self.name = self.spec.name
        self.threshold = self.spec.threshold
        if self.spec.folder is None and cache is None:
            cache = default_cache(self.spec)
        self._cache = cache
        self._in_memory: Loaded | None = None
        self._lock = ForkLock()

    @abstractmethod
    def _weight_files(self, files: ModelFiles) -> list[Path]:
        """Return the files that hold the network."""

    @abstractmethod
    def _network(self, files: ModelFiles) -> Network:
        """Load the network from verified files."""

    @property
    def _padding(self) -> int | None:
        """Tokens of a padded batch, or None where padding does not pay."""
        return None

    def load(self) -> Loaded:
        """Read the model now rather than at the first detection; returns it with its resolved revision (`files.revision`)."""
        with self._lock:
            if self._in_memory is None:
                self._in_memory = self._read()
            return self._in_memory

    def detect(self, conversations: Sequence[Conversation]) -> list[Detection | None]:
        """Return P(refusal or partial) for each conversation, the greatest of its windows; None where there is nothing to read."""
        loaded = self.load()
        readings = [loaded.reader.read(conversation) for conversation in conversations]
        found = self._logits(loaded, readings)
        return [self._detection(loaded.checkpoint, *pair) if len(pair[1]) else None for pair in zip(readings, found, strict=True)]

    def logits(self, conversations: Sequence[Conversation]) -> list[NDArray[np.float64]]:
        """Return the raw logits for each conversation, [windows, classes] in the checkpoint's order: what calibration needs."""
        loaded = self.load()
        return self._logits(loaded, [loaded.reader.read(conversation) for conversation in conversations])

    def _logits(self, loaded: Loaded, readings: Sequence[Reading]) -> list[NDArray[np.float64]]:
        texts = [window.ids for reading in readings for window in reading.windows]
        found = np.zeros((len(texts), self.spec.num_labels))
        for batch in batches([len(ids) for ids in texts], self._padding):
            logits = loaded.network(*_padded([texts[i] for i in batch], loaded.checkpoint.pad))
            if logits.shape != (len(batch), self.spec.num_labels) or not np.isfinite(logits).all():
                raise DetectorError(f"detector {self.name} answered no {self.spec.num_labels} finite logits a text", detector=self.name)
            found[batch] = logits
        return np.split(found, np.cumsum([len(reading.windows) for reading in readings])[:-1]) if readings else []

    def _detection(self, checkpoint: Checkpoint, reading: Reading, logits: NDArray[np.float64]) -> Detection:
        probabilities = _softmax(logits / self.spec.temperature)
        partial = probabilities[:, list(checkpoint.partial)].sum(axis=1)
        refusal = probabilities[:, list(checkpoint.refusal)].sum(axis=1)
        scores = np.clip(refusal + partial, 0.0, 1.0)
        fired = int(scores.argmax())
        late = scores[0] < self.threshold <= scores[fired]
        return Detection(
            score=float(scores[fired]),
            detector=self.name,
            label=Label.PARTIAL if late or partial[fired] > refusal[fired] else Label.REFUSAL,
            reason=_reason(checkpoint, probabilities[fired]),
            evidence=reading.windows[fired].span if len(reading.windows) > 1 else None,
            truncated=reading.truncated,
        )

    def _read(self) -> Loaded:
        from tokenizers import Tokenizer

        files = find(self.spec, self._cache)
        checkpoint = Checkpoint.read(files)
        verify(files, [files[CONFIG], files[TOKENIZER], *self._weight_files(files)])
        try:
            tokenizer = Tokenizer.from_file(str(files[TOKENIZER]))
        except Exception as error:  # the library raises nothing narrower
            raise files.error(f"{TOKENIZER} is not one that the tokenizers library reads") from error
        reader = WindowReader(tokenizer, self.spec, min(self.spec.max_tokens, checkpoint.limit))
        return Loaded(files, checkpoint, reader, self._network(files))


def batches(lengths: Sequence[int], padding: int | None) -> Iterator[list[int]]:
    """Yield the indices of texts to be run together, the longest first.

    With `padding`, texts of like lengths share a batch of at most so many tokens, filled ones included; that is how a GPU is kept
    busy. Without, only texts of equal length do: on a CPU one text fills a core, and padding would be work for nothing.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[batch[0]] if batch else 0
        full = longest * (len(batch) + 1) > (padding or _CPU_BATCH_TOKENS)
        if batch and (full or (padding is None and lengths[i] != longest)):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _padded(texts: Sequence[Sequence[int]], pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids = np.full((len(texts), max(map(len, texts))), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return ids, mask


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def _reason(checkpoint: Checkpoint, probabilities: NDArray[np.float64]) -> Reason | None:
    """Return the reason of the likeliest class that stands for one."""
    best = max(checkpoint.reasons, key=lambda index: float(probabilities[index]), default=None)
    return None if best is None else checkpoint.reasons[best]
