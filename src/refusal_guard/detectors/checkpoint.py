"""What a checkpoint's config.json says of its classes and limits, held against the spec."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..verdict import Reason
from .hub import CONFIG, ModelFiles
from .spec import folded

# Position embeddings of this family begin behind the padding id, so that many of them hold no token.
_POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "camembert", "longformer", "mpnet"})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Which classes mean what, by index, and what the model can read.

    `limit` is the most tokens it takes, `pad` the id that fills up a batch.
    """

    refusal: tuple[int, ...]
    partial: tuple[int, ...]
    reasons: Mapping[int, Reason]
    limit: int
    pad: int

    @classmethod
    def read(cls, files: ModelFiles) -> Self:
        """Read config.json. Raises ModelError when the checkpoint is not the classifier that the spec describes."""
        spec = files.spec
        config = _config(files)
        names = _class_names(files, config)
        pad = config.get("pad_token_id")
        pad = pad if isinstance(pad, int) else 0
        positions = config.get("max_position_embeddings")
        if isinstance(positions, int) and config.get("model_type") in _POSITIONS_AFTER_PADDING:
            positions -= pad + 1
        return cls(
            refusal=_indices(files, names, spec.refusal_labels),
            partial=_indices(files, names, spec.partial_labels),
            reasons={_indices(files, names, [label])[0]: reason for label, reason in spec.reasons.items()},
            limit=min(spec.limit, positions) if isinstance(positions, int) else spec.limit,
            pad=pad,
        )


def _config(files: ModelFiles) -> dict[str, Any]:
    try:
        config = json.loads(files[CONFIG].read_text(encoding="utf-8"))
    except ValueError:
        raise files.error(f"{CONFIG} is no JSON") from None
    if not isinstance(config, dict):
        raise files.error(f"{CONFIG} is no JSON object")
    if config.get("auto_map"):
        raise files.error("it needs code of its own (auto_map in config.json), which is never run here")
    kind = (config.get("architectures") or ["nothing"])[0]
    if not str(kind).endswith("ForSequenceClassification"):
        raise files.error(
            f"config.json describes {kind}, not a sequence classifier: it has no trained classifier head. Name a fine-tuned checkpoint"
        )
    return config


def _class_names(files: ModelFiles, config: Mapping[str, Any]) -> list[str]:
    """Return the names of the classes by index: the checkpoint's, or the spec's where the checkpoint has but placeholders."""
    spec = files.spec
    raw = config.get("id2label") or {str(i): f"LABEL_{i}" for i in range(spec.num_labels)}
    try:
        names = {int(index): str(name) for index, name in raw.items()}
    except (AttributeError, ValueError):
        raise files.error(f"id2label in {CONFIG} does not name classes by their indices") from None
    if sorted(names) != list(range(spec.num_labels)):
        raise files.error(f"it has {len(names)} classes, and the spec says {spec.num_labels}. Is it another checkpoint?")
    ordered = [names[i] for i in range(len(names))]
    if all(re.fullmatch(r"LABEL_\d+", name) for name in ordered):
        return list(spec.labels or ordered)
    if spec.labels is not None and sorted(map(folded, ordered)) != sorted(map(folded, spec.labels)):
        raise files.error(f"its classes are {ordered}, and the spec knows {list(spec.labels)}. Is it another checkpoint?")
    return ordered


def _indices(files: ModelFiles, names: list[str], labels: Iterable[str | int]) -> tuple[int, ...]:
    known = [folded(name) for name in names]
    found = []
    for label in labels:
        index = label if isinstance(label, int) else known.index(folded(label)) if folded(label) in known else -1
        if not 0 <= index < len(names):
            raise files.error(f"it has no class {label!r}; its classes are {names}. Name the ones that mean refusal in the spec")
        found.append(index)
    return tuple(sorted(found))
