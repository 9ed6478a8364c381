"""The loaded model: weights, tokenizer and the ONNX session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import onnxruntime
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from ...text import Sentence, sentences
from .linear import LinearModel
from .passages import TokenBudget, encode

if TYPE_CHECKING:
    from numpy.typing import NDArray

# One kernel for the sum and its normalisation takes three times as long as the two kernels that it stands for (ONNX Runtime 1.32).
_SLOWER_FUSED = {"SkipLayerNormFusion"}


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything a detection needs in memory; read-only, so threads share it."""

    linear: LinearModel
    tokenizer: Tokenizer
    session: onnxruntime.InferenceSession
    budget: TokenBudget

    @classmethod
    def load(cls, folder: Path, tokens: dict[str, int]) -> Self:
        """Read a model folder whose hashes were checked."""
        tensors = load_file(folder / "linear.safetensors")
        options = onnxruntime.SessionOptions()
        # One thread per call: more of them slow a shared CPU down, and callers scale over rows instead.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            folder / "encoder.onnx", options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOWER_FUSED
        )
        linear = LinearModel(**{name: tensor.astype(np.float32) for name, tensor in tensors.items()})
        runtime = cls(linear, Tokenizer.from_file(str(folder / "tokenizer.json")), session, TokenBudget(**tokens))
        runtime._read_once()
        return runtime

    def _read_once(self) -> None:
        """Have everything imported that a first reading imports (numpy puts some off).

        A fork waits for whoever loads the model, but not for whoever reads: an import there would leave its lock taken in the child.
        """
        spans = sentences("A first sentence.")
        _, scores = self.linear.read(spans)
        self.encoder_logits("", spans, scores)

    def encoder_logits(self, prompt: str, spans: Sequence[Sentence], scores: NDArray[np.float64]) -> list[float]:
        """Return the encoder's logits for one pair, in the order of the config's labels."""
        ids, segments = encode(self.tokenizer, prompt, spans, scores, self.budget)
        feed = {
            "input_ids": np.array([ids], dtype=np.int64),
            "token_type_ids": np.array([segments], dtype=np.int64),
        }
        return [float(logit) for logit in self.session.run(None, feed)[0][0]]
