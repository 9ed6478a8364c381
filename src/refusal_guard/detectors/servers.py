"""What the servers of classifiers expect and return, as pure functions: text-embeddings-inference (TEI), vLLM and SGLang.

Sources: TEI 1.9.3, docs/openapi.json and router/src/http/types.rs; vLLM, entrypoints/pooling/classify/protocol.py;
SGLang, docs/supported_models/classify_models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from ..errors import InputError
from ..verdict import Reason
from .spec import ClassLabel, EncoderSpec, folded

ServerName = Literal["tei", "vllm", "sglang"]
Probabilities = Mapping[str, float]
_ROUNDING = 0.02  # how far probabilities in half precision may be from summing to 1
_PLACEHOLDER = re.compile(r"label(\d+)")


class WrongLabels(Exception):
    """The labels are not those of the model; caught where the error is made that the user sees."""


@dataclass(frozen=True, slots=True)
class Classes:
    """Which labels mean what. Names are folded, as copies of a checkpoint write them with other cases, spaces and dashes.

    `names` are all of them in class order; None when the spec names just some. `count` is how many classes there are.
    """

    count: int
    names: tuple[str, ...] | None
    refusal: frozenset[str]
    partial: frozenset[str]
    reasons: Mapping[str, Reason]

    @classmethod
    def of(cls, spec: EncoderSpec, *, in_order: bool) -> Self:
        """Read a spec. Raises InputError when the server sends probabilities in class order and the spec does not tell it."""
        wanted = [*spec.refusal_labels, *spec.partial_labels, *spec.reasons]
        placeholders = tuple(f"label{i}" for i in range(spec.num_labels))
        names = tuple(folded(label) for label in spec.labels) if spec.labels else None
        if names is None and all(isinstance(label, int) for label in wanted):
            names = placeholders
        if in_order and names is None:
            raise InputError(f"the spec of {spec.name} must name all labels in class order (labels): this server does not send them")
        ordered = names or placeholders

        def named(label: ClassLabel) -> str:
            return ordered[label] if isinstance(label, int) else folded(label)

        return cls(
            count=spec.num_labels,
            names=names,
            refusal=frozenset(map(named, spec.refusal_labels)),
            partial=frozenset(map(named, spec.partial_labels)),
            reasons={named(label): reason for label, reason in spec.reasons.items()},
        )

    def __str__(self) -> str:
        """Return the expected names for an error message."""
        return f"the {self.count} expected ({', '.join(self.names or sorted(self.refusal | self.partial))})"

    def named(self, label: str) -> str:
        """Return the folded name of a label that a server sent; early copies of a checkpoint say LABEL_1 instead."""
        name = folded(label)
        placeholder = _PLACEHOLDER.fullmatch(name)
        if placeholder and self.names and int(placeholder[1]) < len(self.names):
            return self.names[int(placeholder[1])]
        return name

    def checked(self, row: Iterable[tuple[str, Any]]) -> Probabilities:
        """Return the probabilities of one text by name. Raises WrongLabels, or ValueError for what are no probabilities."""
        pairs = list(row)
        found = {name: float(p) for name, p in pairs}
        if len(found) != len(pairs) or len(found) != self.count:
            raise WrongLabels
        if set(found) != set(self.names or found) or not self.refusal | self.partial <= set(found):
            raise WrongLabels
        if not all(0.0 <= p <= 1.0 + _ROUNDING for p in found.values()) or abs(sum(found.values()) - 1.0) > _ROUNDING:
            raise ValueError("no probabilities")
        return found


@dataclass(frozen=True, slots=True)
class Server:
    """One kind of server: its path, the body of a request (texts, the model's name) and what its answer says of each text.

    `in_order`: it sends probabilities in class order, and names but the most probable class.
    """

    path: str
    body: Callable[[Sequence[str], str], dict[str, Any]]
    rows: Callable[[Any, Classes], list[Probabilities]]
    in_order: bool


def _tei_body(texts: Sequence[str], _model: str) -> dict[str, Any]:
    """Wrap each text in a list of its own: a flat list of two would be one pair."""
    return {"inputs": [[text] for text in texts], "raw_scores": False, "truncate": True}


def _tei_rows(answer: Any, classes: Classes) -> list[Probabilities]:
    """Read a list of lists of labels with scores; within a list the greatest score comes first, not class 0."""
    return [classes.checked((classes.named(item["label"]), item["score"]) for item in row) for row in answer]


def _vllm_body(texts: Sequence[str], model: str) -> dict[str, Any]:
    return {"model": model, "input": list(texts), "truncate_prompt_tokens": -1}


def _sglang_body(texts: Sequence[str], model: str) -> dict[str, Any]:
    return {"model": model, "input": list(texts)}


def _classify_rows(answer: Any, classes: Classes) -> list[Probabilities]:
    """Read an object whose `data` has an index, the probabilities in class order and the most probable class's name."""
    data = sorted(answer["data"], key=lambda item: item["index"])
    if [item["index"] for item in data] != list(range(len(data))):
        raise ValueError("an answer is missing")
    return [_classify_row(item, classes) for item in data]


def _classify_row(item: Any, classes: Classes) -> Probabilities:
    names, probabilities = classes.names or (), item["probs"]
    if len(probabilities) != len(names):
        raise WrongLabels
    found = classes.checked(zip(names, probabilities, strict=True))
    winner = classes.named(item["label"])
    known = winner in found or not names[0].startswith("label")
    if known and found.get(winner, -1.0) < max(found.values()):
        raise WrongLabels
    return found


SERVERS: dict[str, Server] = {
    "tei": Server("/predict", _tei_body, _tei_rows, in_order=False),
    "vllm": Server("/classify", _vllm_body, _classify_rows, in_order=True),
    "sglang": Server("/v1/classify", _sglang_body, _classify_rows, in_order=True),
}
