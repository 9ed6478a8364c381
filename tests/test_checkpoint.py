import json

import pytest

from refusal_guard import Reason
from refusal_guard.detectors.checkpoint import Checkpoint
from refusal_guard.detectors.hub import ModelFiles
from refusal_guard.detectors.spec import PRESETS, EncoderSpec
from refusal_guard.errors import ModelError

CONFIG = {
    "model_type": "roberta",
    "architectures": ["RobertaForSequenceClassification"],
    "id2label": {"0": "NORMAL", "1": "REJECTION"},
    "max_position_embeddings": 514,
    "pad_token_id": 1,
}


def read(folder, spec=PRESETS["protectai"], **changes):
    config = {name: value for name, value in (CONFIG | changes).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    return Checkpoint.read(ModelFiles(spec, folder))


def test_a_published_config_is_read_as_it_is(tmp_path):
    assert read(tmp_path) == Checkpoint(refusal=(1,), partial=(), reasons={}, limit=512, pad=1)


@pytest.mark.parametrize(
    ("labels", "refusal"),
    [
        ({"0": "NORMAL", "1": "REJECTION"}, 1),
        ({"0": "rejection", "1": "Normal"}, 0),
        ({"0": "LABEL_0", "1": "LABEL_1"}, 1),
        (None, 1),
    ],
)
def test_classes_go_by_their_names_and_placeholders_by_the_published_order(tmp_path, labels, refusal):
    assert read(tmp_path, id2label=labels).refusal == (refusal,)


def test_names_that_copies_write_differently_are_the_same_class(tmp_path):
    minos = PRESETS["minos"]
    assert read(tmp_path, minos, id2label={"0": "Non - refusal", "1": "REFUSAL"}).refusal == (1,)


def test_several_classes_are_summed_and_stand_for_reasons(tmp_path):
    labels = {str(i): f"LABEL_{i}" for i in range(5)}
    found = read(tmp_path, PRESETS["human-centric"], id2label=labels)
    assert (found.refusal, found.reasons) == ((1, 3), {1: Reason.SHOULD_NOT, 3: Reason.CANNOT})


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, 512),
        ({"max_position_embeddings": 66}, 64),
        ({"model_type": "bert", "max_position_embeddings": 128}, 128),
        ({"max_position_embeddings": None}, 512),
        ({"model_type": "modernbert", "max_position_embeddings": 8_192}, 512),
    ],
)
def test_no_more_is_read_than_the_checkpoint_has_positions_for(tmp_path, changes, limit):
    assert read(tmp_path, **changes).limit == limit


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"id2label": {"0": "good", "1": "bad"}}, "the spec knows"),
        ({"id2label": {"0": "NORMAL"}}, "it has 1 classes, and the spec says 2"),
        ({"id2label": {"zero": "NORMAL", "one": "REJECTION"}}, "by their indices"),
        ({"id2label": ["NORMAL", "REJECTION"]}, "by their indices"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "never run here"),
        ({"architectures": ["RobertaForMaskedLM"]}, "no trained classifier head"),
        ({"architectures": None}, "describes nothing"),
    ],
)
def test_another_checkpoint_than_the_specs_is_refused(tmp_path, changes, says):
    with pytest.raises(ModelError, match=says):
        read(tmp_path, **changes)


@pytest.mark.parametrize("label", ["REFUSED", 7])
def test_an_unknown_refusal_label_lists_the_known_ones(tmp_path, label):
    spec = EncoderSpec(repo=str(tmp_path), inputs="response", refusal_labels={label})
    with pytest.raises(ModelError, match=rf"it has no class {label!r}; its classes are \['NORMAL', 'REJECTION'\]"):
        read(tmp_path, spec)


@pytest.mark.parametrize(("text", "says"), [("nothing", "no JSON"), ("[]", "no JSON object"), (None, "missing")])
def test_a_config_that_is_none(tmp_path, text, says):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=says):
        Checkpoint.read(ModelFiles(PRESETS["protectai"], tmp_path))
