"""Int8 graphs: made once by dynamic quantisation, kept with the hashes of what they were made from and of themselves."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import MissingExtraError, ModelError
from .hub import ModelFiles, digest, verify

_GRAPH, _NOTE = "model.onnx", "model.json"


class Note(BaseModel):
    """What a quantised graph was made from; lies beside it."""

    model_config = ConfigDict(frozen=True)

    origin: str
    revision: str | None
    source: str
    source_sha256: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Quantized:
    """The place of a model's int8 graph: ~/.cache/refusal-guard/int8 (or under XDG_CACHE_HOME), one folder a model and revision."""

    files: ModelFiles
    folder: Path

    @classmethod
    def of(cls, files: ModelFiles) -> Self:
        """Return the place of a model's graph, whether or not it was made."""
        root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "refusal-guard" / "int8"
        if files.revision is not None:
            return cls(files, root / files.spec.repo.replace("/", "--") / files.revision)
        home = files.folder.resolve()
        return cls(files, root / home.name / hashlib.sha256(str(home).encode()).hexdigest()[:16])

    @property
    def graph(self) -> Path:
        """Where the graph lies."""
        return self.folder / _GRAPH

    def verified(self) -> Path:
        """Return the graph after a check of its hash, and of its source's where the source lies here. Raises ModelError."""
        command = f"Make it: refusal-guard models quantize {self.files.spec.name if self.files.revision else self.files.folder}"
        try:
            note = Note.model_validate_json((self.folder / _NOTE).read_bytes())
            found = digest(self.graph)
        except (OSError, ValidationError):
            raise self._error(f"there is no int8 graph of it in {self.folder}. {command}") from None
        if found != note.sha256:
            raise self._error(f"{self.graph} is not the file that was made. {command}")
        source = self.files.folder / note.source
        if (note.origin, note.revision) != (self._origin, self.files.revision):
            raise self._error(f"{self.graph} was made from {note.origin} at {note.revision}. {command}")
        if source.is_file() and digest(source) != note.source_sha256:
            raise self._error(f"{self.graph} was made from another {note.source}. {command}")
        return self.graph

    def make(self) -> Path:
        """Quantise the published graph, or one exported from the safetensors weights; returns where it lies.

        Weights become int8, activations are quantised as they come (dynamic quantisation). Raises MissingExtraError without the
        packages that this takes, and ModelError for a model that is not there.
        """
        if find_spec("onnx") is None:
            raise MissingExtraError("Quantising", "int8")
        source = self._source()
        verify(self.files, [source])
        self.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self.folder) as scratch:
            graph = source if source.suffix == ".onnx" else _exported(self.files, Path(scratch) / "fp32.onnx")
            made = _quantised(graph, Path(scratch))
            made.replace(self.graph)
        note = Note(
            origin=self._origin,
            revision=self.files.revision,
            source=source.relative_to(self.files.folder).as_posix(),
            source_sha256=digest(source),
            sha256=digest(self.graph),
        )
        (self.folder / _NOTE).write_text(note.model_dump_json(indent=2), encoding="utf-8")
        return self.graph

    @property
    def _origin(self) -> str:
        return self.files.spec.repo if self.files.revision else str(self.files.folder.resolve())

    def _source(self) -> Path:
        try:
            return self.files.graph
        except ModelError:
            return self.files.weights[0]

    def _error(self, what: str) -> ModelError:
        return self.files.error(what)


def _exported(files: ModelFiles, to: Path) -> Path:
    if any(find_spec(name) is None for name in ("torch", "transformers", "onnxscript")):
        raise MissingExtraError(f"Exporting {files.spec.name}, which publishes no ONNX graph,", "int8,transformers")
    from .export import export

    with quiet():
        return export(files, to)


def _quantised(graph: Path, scratch: Path) -> Path:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(graph)
    # Shapes noted by an exporter can disagree with those that the quantiser infers, and it then gives up; it needs none of them.
    del model.graph.value_info[:]
    plain, made = scratch / "plain.onnx", scratch / "int8.onnx"
    onnx.save(model, plain)
    with quiet():
        quantize_dynamic(plain, made, weight_type=QuantType.QInt8)
    return made


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's and the quantiser's advice to their own developers off the user's terminal."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
