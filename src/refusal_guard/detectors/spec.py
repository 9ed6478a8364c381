"""What has to be known of a published classifier before its numbers mean anything: input format, labels, limits, licence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, TypedDict, Unpack

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ..errors import InputError, ModelError, problems
from ..verdict import Reason, Threshold

SPEC_FILE = "refusal_guard.json"
Role = Literal["system", "user", "assistant"]
WindowPolicy = Literal["shrink", "head", "head_tail", "all"]
ContextTurns = Annotated[int, Field(ge=1)] | Literal["all"]


def _as_label(label: object) -> object:
    """Read a class index that JSON made a string, as it does with keys."""
    return int(label) if isinstance(label, str) and label.isdecimal() else label


ClassLabel = Annotated[str | int, BeforeValidator(_as_label)]


class Template(BaseModel):
    """How a conversation becomes the text that a pair model was trained on.

    `openings` holds the text before each role's content; a role that is not named is left out. Turns are joined by `join`, and
    `ellipsis` stands where text was cut out. A conversation always ends with the assistant's content.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    openings: Mapping[Role, str]
    join: str = ""
    ellipsis: str = "..."

    @model_validator(mode="after")
    def _has_both_sides(self) -> Self:
        if not {"user", "assistant"} <= set(self.openings):
            raise ValueError("a template needs an opening for the roles user and assistant")
        return self


class ReadingOptions(TypedDict, total=False):
    """The settings of a spec that a detector's caller may change."""

    context_turns: ContextTurns
    windows: WindowPolicy
    max_tokens: int
    revision: str


class EncoderSpec(BaseModel):
    """A text classifier of the encoder kind (BERT, RoBERTa, ModernBERT...) that scores refusal, and how it wants to be asked.

    Attributes:
        repo: Folder of the checkpoint, or its repository on the Hugging Face hub.
        inputs: "pair" (a conversation by the `template`) or "response" (its text alone).
        refusal_labels: Names, or indices where the checkpoint names none, of the classes that mean refusal; probabilities are summed.
        partial_labels: The same for partial refusals. The score is the sum of both.
        name: What verdicts call the detector.
        revision: Branch, tag or commit on the hub. A commit pins the weights.
        onnx_file: The published ONNX graph within the repository; None when there is none.
        template: Needed for pairs.
        num_labels: How many classes the checkpoint must have.
        labels: Published names in class order, for copies of the checkpoint whose config.json only says LABEL_0, LABEL_1...
        limit: Most tokens the model can take.
        max_tokens: How many are read at once, specials included; at most `limit`. Cost grows faster than this number.
        windows: What is read of a response that does not fit. "shrink": one window with its head (three quarters) and tail.
            "head": its beginning. "head_tail": two windows, the greater score counts. "all": overlapping windows over all of
            it, the greatest counts, which raises the false alarms with their number.
        context_turns: How many exchanges a pair model reads, the judged one included, or "all".
        threshold: Score from which a response is refused.
        temperature: Divides the logits (temperature scaling: Guo et al. 2017, arXiv 1706.04599).
        reasons: Which refusal label stands for which reason, for models that tell them apart.
        sha256: Files whose hashes are known, checked before they are loaded.
        size_mb: Megabytes of its weights.
        definition: What the model was trained to call a refusal; scores of different definitions can't be averaged.
        language: What it was trained on.
        licence: The licence of the weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: Annotated[str, Field(min_length=1)]
    inputs: Literal["pair", "response"]
    refusal_labels: Annotated[frozenset[ClassLabel], Field(min_length=1)]
    partial_labels: frozenset[ClassLabel] = frozenset()
    name: Annotated[str, Field(min_length=1)] = "encoder"
    revision: str = "main"
    onnx_file: str | None = None
    template: Template | None = None
    num_labels: Annotated[int, Field(ge=2)] = 2
    labels: tuple[str, ...] | None = None
    limit: Annotated[int, Field(ge=16)] = 512
    max_tokens: Annotated[int, Field(ge=16)] = 512
    windows: WindowPolicy = "head_tail"
    context_turns: ContextTurns = 1
    threshold: Threshold = 0.5
    temperature: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0
    reasons: Mapping[ClassLabel, Reason] = {}
    sha256: Mapping[str, str] = {}
    size_mb: int | None = None
    definition: str = "not stated"
    language: str = "not stated"
    licence: str = "not stated"

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.inputs == "pair" and self.template is None:
            raise ValueError("a model of pairs needs a template")
        if self.inputs == "response" and self.context_turns != 1:
            raise ValueError("a model of responses reads no context: context_turns must be 1")
        if self.max_tokens > self.limit:
            raise ValueError(f"max_tokens is above the model's limit of {self.limit}")
        if self.labels is not None and len(self.labels) != self.num_labels:
            raise ValueError(f"{len(self.labels)} labels are named for {self.num_labels} classes")
        if self.refusal_labels & self.partial_labels:
            raise ValueError("a label can't mean a refusal and a partial one")
        return self

    @property
    def folder(self) -> Path | None:
        """The checkpoint's folder, or None when it lies on the hub."""
        path = Path(self.repo).expanduser()
        return path if path.is_dir() else None

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read a checkpoint folder's refusal_guard.json; the field `repo` is the folder itself.

        Raises ModelError when there is none, or when it is no such spec.
        """
        try:
            fields = json.loads((folder / SPEC_FILE).read_text(encoding="utf-8"))
            return cls.model_validate({"name": folder.resolve().name, **fields, "repo": str(folder)})
        except (OSError, ValueError, TypeError) as error:
            why = problems(error) if isinstance(error, ValidationError) else "it is missing or no JSON object"
            raise ModelError(
                f"the model in {folder} can't be used: its {SPEC_FILE}, which says how the model wants to be asked, does not do: {why}. "
                'The least it holds: {"inputs": "response", "refusal_labels": ["REFUSAL"]}',
                detector="encoder",
                path=folder,
            ) from None

    def changed(self, **options: Unpack[ReadingOptions]) -> Self:
        """Return the spec with other settings, checked again. Raises InputError when they don't fit the model."""
        try:
            return type(self).model_validate(self.model_dump() | options)
        except ValidationError as error:
            raise InputError(f"detector {self.name}: {problems(error)}") from None


def folded(label: str) -> str:
    """Return a label without what copies of a checkpoint write differently: case, spaces, dashes."""
    return re.sub(r"[\W_]", "", label).casefold()


def spec_of(model: EncoderSpec | str | Path) -> EncoderSpec:
    """Return the spec of a preset's name or of a folder with a refusal_guard.json, or the spec itself.

    Raises InputError for anything else and ModelError for a folder without a usable spec.
    """
    if isinstance(model, EncoderSpec):
        return model
    if str(model) in PRESETS:
        return PRESETS[str(model)]
    if Path(model).is_dir():
        return EncoderSpec.from_folder(Path(model))
    raise InputError(
        f"unknown model {str(model)!r}: take one of {', '.join(sorted(PRESETS))}, a folder with {SPEC_FILE}, or an EncoderSpec"
    )


_CHAT_LINES = Template(openings={"user": "<|user|>\n", "assistant": "<|assistant|>\n"}, join="\n")
_CHAT_TAGS = Template(openings={"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}, ellipsis="<|...|>")

_PUBLISHED = (
    EncoderSpec(
        name="minos",
        repo="NousResearch/Minos-v1",
        inputs="pair",
        template=_CHAT_LINES,
        labels=("Non-refusal", "Refusal"),
        refusal_labels=frozenset({"Refusal"}),
        limit=8_192,
        max_tokens=1_024,
        windows="shrink",
        size_mb=1_583,
        definition="the assistant refuses what the user asks; partial refusals and moralising are not named by its card",
        language="English",
        licence="Apache-2.0",
    ),
    EncoderSpec(
        name="protectai",
        repo="protectai/distilroberta-base-rejection-v1",
        revision="65584967c3f22ff7723e5370c65e0e76791e6055",
        onnx_file="onnx/model.onnx",
        inputs="response",
        labels=("NORMAL", "REJECTION"),
        refusal_labels=frozenset({"REJECTION"}),
        size_mb=328,
        definition="the output rejects the prompt, as the models of 2023 put it; the prompt is not read",
        language="English",
        licence="Apache-2.0",
    ),
    EncoderSpec(
        name="garak",
        repo="garak-llm/garak-refusal-detector",
        revision="5cb5ec8f364318cc48724ddf8ad414000c36781b",
        inputs="response",
        labels=("refusal", "non-refusal"),
        refusal_labels=frozenset({"refusal"}),
        limit=8_192,
        max_tokens=1_024,
        definition="the response refuses, in any of seven styles; trained on about 20,000 synthetic responses; the prompt is not read",
        language="English",
        licence="NVIDIA Open Model License",
    ),
    EncoderSpec(
        name="agentlans",
        repo="agentlans/multilingual-e5-small-refusal-classifier",
        inputs="pair",
        template=_CHAT_TAGS,
        labels=("Non-refusal", "Refusal"),
        refusal_labels=frozenset({"Refusal"}),
        windows="shrink",
        definition="the assistant declines to answer, for safety, policy or capability",
        language="37 languages",
        licence="MIT",
    ),
    EncoderSpec(
        name="human-centric",
        repo="Human-CentricAI/LLM-Refusal-Classifier",
        inputs="response",
        num_labels=5,
        refusal_labels=frozenset({1, 3}),
        reasons={1: Reason.SHOULD_NOT, 3: Reason.CANNOT},
        definition="refuses for ethical reasons (class 1) or for lack of capability (3); disclaimers (2, 4) count as answers",
        language="English",
        licence="CC-BY-NC-4.0",
    ),
)
PRESETS = {spec.name: spec for spec in _PUBLISHED}
"""The published classifiers whose input format their cards or their users' code state, by name."""
