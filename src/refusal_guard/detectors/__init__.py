"""Detectors: what they must offer, and how a name becomes one."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

from ..conversation import Conversation
from ..errors import DetectorError, InputError
from ..verdict import Detection

BUILT_IN = {
    "embedded": "refusal_guard.detectors.embedded:EmbeddedDetector",
    "cascade": "refusal_guard.detectors.cascade:embedded_then_minos",
}
BACKENDS = ("transformers", "onnx", "int8")


class Detector(Protocol):
    """Anything with a name and this one method is a detector; pass the object to Guard.

    A detector may also have a `threshold`, which the guard takes when the caller names none.
    """

    @property
    def name(self) -> str:
        """What verdicts call it."""
        ...

    def detect(self, conversations: Sequence[Conversation]) -> list[Detection | None]:
        """Return a detection for each conversation, in order; None where the detector abstains."""
        ...


def one_each(detector: Detector, detections: list[Detection | None], conversations: Sequence[Conversation]) -> list[Detection | None]:
    """Return a detector's answers; raises DetectorError when there is not one for each conversation."""
    if len(detections) != len(conversations):
        name = detector.name
        raise DetectorError(f"detector {name} returned {len(detections)} answers for {len(conversations)}", detector=name)
    return detections


def load_detector(spec: str | Path | Detector) -> Detector:
    """Return the detector of a name, of a model folder, of a server's URL, or the object itself.

    A published classifier's name (`minos`) or a checkpoint's folder runs in torch where torch and transformers are installed, else in
    ONNX Runtime; `transformers:`, `onnx:` or `int8:` before it chooses.

    Raises InputError for an unknown name and ModelError for a folder that holds no usable model.
    """
    if not isinstance(spec, str | Path):
        if not callable(getattr(spec, "detect", None)) or not isinstance(getattr(spec, "name", None), str):
            raise InputError(f"a detector needs a name and a method detect(conversations); {type(spec).__name__} is none")
        return spec
    if str(spec) in BUILT_IN:
        module, _, attribute = BUILT_IN[str(spec)].partition(":")
        return cast(Detector, getattr(import_module(module), attribute)())
    from .spec import PRESETS

    name = str(spec)
    if name.startswith(("http://", "https://")):
        from .remote import connect

        return connect(name)
    backend, _, model = name.partition(":")
    if backend in BACKENDS and model:
        return _encoder(model, backend)
    if name in PRESETS or _is_checkpoint(Path(spec)):
        return _encoder(name, "transformers" if find_spec("torch") and find_spec("transformers") else "onnx")
    if Path(spec).is_dir():
        from .embedded import EmbeddedDetector

        return EmbeddedDetector(Path(spec))
    names = ", ".join(sorted([*BUILT_IN, *PRESETS]))
    raise InputError(f"unknown detector {name!r}: take one of {names}, a model folder, the URL of a server, or pass an object")


def _is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint of the transformers library rather than a model of the embedded kind."""
    config = folder / "config.json"
    return config.is_file() and b'"model_type"' in config.read_bytes()


def _encoder(model: str, backend: str) -> Detector:
    """Return the detector of a preset's name or a checkpoint folder, run by a backend."""
    if backend == "transformers":
        from .transformers import TransformersDetector

        return TransformersDetector(model)
    from .onnx import OnnxDetector

    return OnnxDetector(model, int8=backend == "int8")
