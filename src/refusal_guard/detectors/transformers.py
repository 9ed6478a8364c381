"""Encoder classifiers in torch, through the transformers library."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, get_args

from ..errors import InputError, MissingExtraError
from .encoder import GPU_BATCH_TOKENS, EncoderDetector, Network
from .hub import ModelFiles
from .spec import EncoderSpec, ReadingOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import torch
    from numpy.typing import NDArray

Dtype = Literal["fp32", "bf16"]


class TransformersDetector(EncoderDetector):
    """An encoder classifier in torch: `Guard(detector=TransformersDetector("minos"))`.

    `device` is a torch device ("cpu", "cuda:1"...), by default a CUDA card where there is one. `dtype` is "fp32" or "bf16", which
    halves the time on cards and CPUs that have it and moves scores a little. `threads` is how many a call takes on a CPU: one, since
    callers such as `scan` already run as many calls as there are cores; None leaves torch's own setting. The rest is EncoderDetector's.
    """

    def __init__(
        self,
        model: EncoderSpec | str | Path,
        *,
        device: str | None = None,
        dtype: Dtype = "fp32",
        threads: int | None = 1,
        cache: Path | None = None,
        **reading: Unpack[ReadingOptions],
    ) -> None:
        super().__init__(model, cache=cache, **reading)
        if dtype not in get_args(Dtype):
            raise InputError(f"dtype must be one of {', '.join(get_args(Dtype))}")
        if threads is not None and threads < 1:
            raise InputError("threads must be 1 or more, or None")
        if find_spec("torch") is None or find_spec("transformers") is None:
            raise MissingExtraError(f"The detector {self.name} in torch", "transformers")
        self._device, self._dtype, self._threads = device, dtype, threads

    @property
    def _padding(self) -> int | None:
        return None if self._torch_device().type == "cpu" else GPU_BATCH_TOKENS

    def _torch_device(self) -> torch.device:
        import torch

        try:
            return torch.device(self._device or ("cuda" if torch.cuda.is_available() else "cpu"))
        except RuntimeError:
            raise InputError(f"torch knows no device {self._device!r}") from None

    def _weight_files(self, files: ModelFiles) -> list[Path]:
        return files.weights

    def _network(self, files: ModelFiles) -> Network:
        import torch

        model = classifier(files, torch.float32 if self._dtype == "fp32" else torch.bfloat16)
        return _TorchNetwork(model.to(self._torch_device()), self._torch_device(), self._threads)


class _TorchNetwork:
    def __init__(self, model: Any, device: torch.device, threads: int | None) -> None:
        self._model, self._device = model, device
        self._threads = threads if device.type == "cpu" else None

    def __call__(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float64]:
        import torch

        with torch.inference_mode(), _torch_threads(self._threads):
            inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
            logits = self._model(**{name: tensor.to(self._device) for name, tensor in inputs.items()}).logits
            found: NDArray[np.float64] = logits.to(torch.float64).cpu().numpy()
        return found


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    """Run with so many threads; torch keeps the number for each calling thread, and the caller's is put back."""
    import torch

    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def classifier(files: ModelFiles, dtype: torch.dtype) -> Any:
    """Load a sequence classifier for inference: safetensors only, no remote code, no network, no weight left at random.

    Raises ModelError when the checkpoint is not of that kind.
    """
    from transformers import AutoModelForSequenceClassification

    try:
        with _no_progress_bar():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                str(files.folder),
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # transformers and safetensors raise many kinds, and each means that the files don't fit
        first_line = next(iter(str(error).strip().splitlines()), "")
        raise files.error(f"transformers can't load it: {type(error).__name__}: {first_line}") from error
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report.get("mismatched_keys", ()))
    if missing:
        raise files.error(f"its weights lack {', '.join(missing[:4])}, which would be random numbers. Name a fine-tuned checkpoint")
    return model.eval()


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
