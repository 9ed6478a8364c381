"""Encoder classifiers in ONNX Runtime, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from ..errors import InputError
from .encoder import GPU_BATCH_TOKENS, EncoderDetector, Network
from .hub import ModelFiles
from .quantize import Quantized
from .spec import EncoderSpec, ReadingOptions

if TYPE_CHECKING:
    import onnxruntime
    from numpy.typing import NDArray

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})


class OnnxDetector(EncoderDetector):
    """An encoder classifier in ONNX Runtime: `Guard(detector=OnnxDetector("protectai"))`.

    `int8` takes the quantised graph that `refusal-guard models quantize` made: about three times as fast on a CPU. `device` is "cpu"
    or "cuda" (which needs onnxruntime-gpu). `threads` is how many a call takes: one, since callers such as `scan` already run as many
    calls as there are cores. The rest is EncoderDetector's. An ONNX graph keeps the whole attention matrix in memory: read up to about
    2,000 tokens with it.
    """

    def __init__(
        self,
        model: EncoderSpec | str | Path,
        *,
        int8: bool = False,
        device: str = "cpu",
        threads: int = 1,
        cache: Path | None = None,
        **reading: Unpack[ReadingOptions],
    ) -> None:
        super().__init__(model, cache=cache, **reading)
        if device not in _PROVIDERS:
            raise InputError(f"device must be one of {', '.join(_PROVIDERS)}")
        if threads < 1:
            raise InputError("threads must be 1 or more")
        self._int8, self._device, self._threads = int8, device, threads

    @property
    def _padding(self) -> int | None:
        return None if self._device == "cpu" else GPU_BATCH_TOKENS

    def _weight_files(self, files: ModelFiles) -> list[Path]:
        return [] if self._int8 else [files.graph, *(path for path in files.graph.parent.glob(f"{files.graph.name}[._]data"))]

    def _network(self, files: ModelFiles) -> Network:
        graph = Quantized.of(files).verified() if self._int8 else files.graph
        return _OnnxNetwork(self._session(files, graph), files)

    def _session(self, files: ModelFiles, graph: Path) -> onnxruntime.InferenceSession:
        import onnxruntime

        provider = _PROVIDERS[self._device]
        if provider not in onnxruntime.get_available_providers():
            raise InputError(f"this onnxruntime has no {provider}: install onnxruntime-gpu")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        try:
            return onnxruntime.InferenceSession(graph, options, providers=[provider])
        except Exception as error:  # the library's own kinds have no common base below Exception
            raise files.error(f"ONNX Runtime can't load {graph.name}: {type(error).__name__}") from error


class _OnnxNetwork:
    def __init__(self, session: onnxruntime.InferenceSession, files: ModelFiles) -> None:
        self._session = session
        self._names = [tensor.name for tensor in session.get_inputs()]
        unknown = sorted(set(self._names) - _INPUTS)
        if unknown:
            raise files.error(f"its graph wants {', '.join(unknown)} as inputs. Export it again with input_ids and attention_mask")
        outputs = [tensor.name for tensor in session.get_outputs()]
        self._output = "logits" if "logits" in outputs else outputs[0]

    def __call__(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float64]:
        every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        logits = self._session.run([self._output], {name: every[name] for name in self._names})[0]
        return np.asarray(logits, dtype=np.float64)
