"""The embedded detector: a linear model settles the clear cases, a small encoder reads the rest.

The model is a folder of data: `config.json` (labels, threshold, calibration, hashes), weights as safetensors and ONNX, and
the tokenizer. It is read at the first detection, not at import.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import ModelError
from ...forks import ForkLock
from ...text import HEAD_CHARACTERS, Sentence, clip, plain, sentences
from ...verdict import Detection, Label, Probability, Reason, Span, Threshold

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...conversation import Conversation
    from .runtime import Runtime

MODELS = Path(__file__).parents[2] / "models"
DEFAULT_MODEL = "refusal-v1"
_FORMAT = 1


class Settle(BaseModel):
    """The first stage decides alone below and above these logits, which it calibrates as scale * logit + bias.

    It does not when a sentence scores `suspicious` or more: one declining sentence hardly moves the sum of a very long answer.
    """

    model_config = ConfigDict(frozen=True)

    below: float
    above: float
    suspicious: float
    scale: float
    bias: float

    def passes_on(self, first: float, strongest: float) -> bool:
        """Return whether the encoder reads a response with this logit, whose strongest sentence scores `strongest`."""
        return first < self.above and (first > self.below or strongest >= self.suspicious)


class Blend(BaseModel):
    """The final logit where both stages read: first * linear + second * encoder + bias (stacking, fitted on held-out rows).

    A linear logit below the settling band counts as 0: the encoder was asked because of one sentence, and on that the sum says nothing.
    """

    model_config = ConfigDict(frozen=True)

    first: float
    second: float
    bias: float


class Config(BaseModel):
    """A model folder's config.json."""

    model_config = ConfigDict(frozen=True)

    format: int
    name: str
    labels: tuple[Label, ...]
    threshold: Threshold
    settle: Settle
    blend: Blend
    reason_margin: float
    tokens: dict[str, int]
    files: dict[str, str]


class EmbeddedDetector:
    """The model that ships inside the package, or another folder of the same form.

    `threshold` is the model's own. Raises ModelError when the folder is incomplete, or when a file is not the one its
    config.json recorded.
    """

    name = "embedded"

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = MODELS / DEFAULT_MODEL if folder is None else folder
        self.config = self._read_config()
        self._runtime: Runtime | None = None
        self._lock = ForkLock()

    @property
    def threshold(self) -> float:
        """The score from which the model's makers call a response refused."""
        return self.config.threshold

    def detect(self, conversations: Sequence[Conversation]) -> list[Detection | None]:
        """Return P(refusal or partial) for each conversation; None where the response holds no word.

        The encoder runs one conversation at a time: on a CPU a batch only adds padding.
        """
        runtime = self._loaded()
        return [self._detect_one(runtime, conversation) for conversation in conversations]

    def _detect_one(self, runtime: Runtime, conversation: Conversation) -> Detection | None:
        text, cut = clip(conversation.visible_response)
        spans = sentences(text)
        if not spans:
            return None
        first, scores = runtime.linear.read(spans)
        settle, strongest = self.config.settle, int(scores.argmax())
        closely = settle.passes_on(first, float(scores[strongest]))
        if closely:
            score, label = self._read_closely(runtime, first, plain(clip(conversation.prompt)[0]), spans, scores)
        else:
            score, label = _sigmoid(settle.scale * first + settle.bias), Label.REFUSAL
        # A settled answer has no reason to decline; looking for one would take a sixth of its time.
        declines = closely or first >= settle.above
        return Detection(
            score=score,
            detector=self.name,
            label=label,
            reason=self._reason(runtime.linear.cannot(spans[strongest].plain)) if declines else None,
            evidence=_in_original(spans[strongest], cut, len(text)),
            truncated=("response",) if cut else (),
        )

    def _read_closely(
        self, runtime: Runtime, first: float, prompt: str, spans: Sequence[Sentence], scores: NDArray[np.float64]
    ) -> tuple[Probability, Label]:
        """Return the score of both stages together, and whether a refusal would be a whole or a partial one."""
        logits = dict(zip(self.config.labels, runtime.encoder_logits(prompt, spans, scores), strict=True))
        declines = math.log(math.exp(logits[Label.REFUSAL]) + math.exp(logits[Label.PARTIAL])) - logits[Label.COMPLIANCE]
        blend = self.config.blend
        label = max((Label.REFUSAL, Label.PARTIAL), key=logits.__getitem__)
        known = first if first > self.config.settle.below else 0.0
        return _sigmoid(blend.first * known + blend.second * declines + blend.bias), label

    def _reason(self, cannot: float) -> Reason | None:
        if abs(cannot) < self.config.reason_margin:
            return None
        return Reason.CANNOT if cannot > 0 else Reason.SHOULD_NOT

    def _loaded(self) -> Runtime:
        with self._lock:
            if self._runtime is None:
                from .runtime import Runtime

                self.verify()
                self._runtime = Runtime.load(self.folder, self.config.tokens)
            return self._runtime

    def _read_config(self) -> Config:
        try:
            config = Config.model_validate_json((self.folder / "config.json").read_bytes())
        except OSError as error:
            raise self._error(f"no readable config.json ({error.strerror})") from None
        except ValidationError as error:
            raise self._error(f"config.json is not of this form: {error.error_count()} wrong fields") from None
        if config.format != _FORMAT:
            raise self._error(f"format {config.format}, while this version of refusal-guard reads format {_FORMAT}: update refusal-guard")
        return config

    def verify(self) -> None:
        """Compare every file with the hash that config.json recorded. Raises ModelError for one that is missing or another."""
        for name, recorded in self.config.files.items():
            try:
                with (self.folder / name).open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise self._error(f"{name} can't be read ({error.strerror})") from None
            if found != recorded:
                raise self._error(f"{name} is not the file recorded in config.json: install refusal-guard again")

    def _error(self, what: str) -> ModelError:
        return ModelError(f"the model in {self.folder} can't be used: {what}", detector=self.name, path=self.folder)


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-max(-500.0, min(500.0, logit))))


def _in_original(sentence: Sentence, cut: int, length: int) -> Span:
    """Move a span of the clipped text to where it stood before the middle was cut out."""
    shift = cut if sentence.start >= HEAD_CHARACTERS else 0
    return Span(sentence.start + shift, sentence.end + shift)
