import json

import pytest
from pydantic import ValidationError

from refusal_guard import InputError, Reason
from refusal_guard.detectors.spec import PRESETS, EncoderSpec, Template, spec_of
from refusal_guard.errors import ModelError

TAGS = Template(openings={"user": "U: ", "assistant": "A: "})
LEAST = {"repo": "some/model", "inputs": "response", "refusal_labels": {"REFUSAL"}}


@pytest.mark.parametrize("spec", PRESETS.values(), ids=lambda spec: spec.name)
def test_every_preset_survives_json_and_says_what_it_is(spec):
    assert EncoderSpec.model_validate_json(spec.model_dump_json()) == spec
    assert "not stated" not in (spec.definition, spec.language, spec.licence)


def test_the_two_models_of_the_field_are_asked_as_their_cards_say():
    minos, protectai = PRESETS["minos"], PRESETS["protectai"]
    assert minos.template.openings == {"user": "<|user|>\n", "assistant": "<|assistant|>\n"}
    assert (minos.template.join, minos.limit, minos.context_turns) == ("\n", 8_192, 1)
    assert (protectai.inputs, protectai.max_tokens, protectai.windows) == ("response", 512, "head_tail")
    assert protectai.revision == "65584967c3f22ff7723e5370c65e0e76791e6055"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"inputs": "pair"}, "needs a template"),
        ({"context_turns": 2}, "reads no context"),
        ({"context_turns": 0}, "greater than or equal to 1"),
        ({"max_tokens": 513}, "above the model's limit"),
        ({"labels": ("A", "B", "C")}, "3 labels are named for 2"),
        ({"partial_labels": {"REFUSAL"}}, "can't mean a refusal and a partial"),
        ({"refusal_labels": set()}, "at least 1"),
        ({"threshold": 1.0}, "less than 1"),
        ({"temperature": 0.0}, "greater than 0"),
        ({"windows": "some"}, "head_tail"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_a_spec_that_disagrees_with_itself_is_refused(change, says):
    with pytest.raises(ValidationError, match=says):
        EncoderSpec(**LEAST | change)


def test_a_template_without_both_sides_is_refused():
    with pytest.raises(ValidationError, match="user and assistant"):
        Template(openings={"user": "U: "})


def test_a_caller_changes_settings_and_hears_of_bad_ones():
    assert PRESETS["minos"].changed(context_turns="all", max_tokens=8_192).context_turns == "all"
    with pytest.raises(InputError, match=r"detector minos: .*above the model's limit"):
        PRESETS["minos"].changed(max_tokens=10_000)


def test_a_folder_brings_its_own_spec(tmp_path):
    fields = {"inputs": "response", "refusal_labels": [1, 3], "num_labels": 5, "reasons": {"3": "cannot"}, "repo": "elsewhere/model"}
    (tmp_path / "refusal_guard.json").write_text(json.dumps(fields))
    spec = spec_of(tmp_path)
    assert (spec.name, spec.repo, spec.folder) == (tmp_path.name, str(tmp_path), tmp_path)
    assert spec.reasons == {3: Reason.CANNOT}


@pytest.mark.parametrize("text", [None, "no json", "[]", '{"inputs": "response"}', "\xff"])
def test_a_folder_without_a_usable_spec_says_the_least_it_needs(tmp_path, text):
    if text is not None:
        (tmp_path / "refusal_guard.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match="The least it holds") as caught:
        spec_of(tmp_path)
    assert caught.value.path == tmp_path


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match="minos"):
        spec_of("oracle")
