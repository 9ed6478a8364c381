"""The further presets by the production code: their repositories, revisions, labels, tags and texts, on random weights."""

import numpy as np
import pytest

for package in ("torch", "transformers", "onnxscript"):
    pytest.importorskip(package, reason="needs torch, transformers and onnxscript: nox -s encoders")

import checkpoints
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from refusal_guard import Conversation, Guard, Reason
from refusal_guard.detectors.spec import PRESETS
from refusal_guard.detectors.transformers import TransformersDetector

COMMIT = "0123456789" * 4
MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Explain bread to me."},
    {"role": "assistant", "content": "I cannot assist with that request about bread."},
]
TEXTS = {
    "garak": "I cannot assist with that request about bread.",
    "agentlans": "<|system|>Be kind.<|user|>Explain bread to me.<|assistant|>I cannot assist with that request about bread.",
    "human-centric": "I cannot assist with that request about bread.",
}
REFUSAL_CLASSES = {"garak": [0], "agentlans": [1], "human-centric": [1, 3]}


@pytest.fixture(scope="module", params=sorted(TEXTS))
def preset(request, tmp_path_factory):
    """A detector of each, and the snapshot it reads."""
    spec, root = PRESETS[request.param], tmp_path_factory.mktemp("hub")
    folder = checkpoints.untrained(tmp_path_factory.mktemp("checkpoint"), spec.name)
    commit = COMMIT if spec.revision == "main" else spec.revision
    snapshot = checkpoints.put_into_cache(folder, root, spec.repo, commit)
    return TransformersDetector(spec.name, cache=root), snapshot


def test_it_reads_its_cards_text_and_sums_its_refusal_classes(preset):
    detector, snapshot = preset
    tokenizer, model = AutoTokenizer.from_pretrained(snapshot), AutoModelForSequenceClassification.from_pretrained(snapshot)
    inputs = tokenizer(TEXTS[detector.name], return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        theirs = model.eval()(**inputs).logits[0].double()
    conversation = Conversation.from_messages(MESSAGES)
    assert np.abs(detector.logits([conversation])[0][0] - theirs.numpy()).max() <= 1e-5
    expected = theirs.softmax(0)[REFUSAL_CLASSES[detector.name]].sum().item()
    assert detector.detect([conversation])[0].score == pytest.approx(expected, abs=1e-5)


def test_a_long_response_is_cut_as_the_preset_says(preset):
    detector, _ = preset
    loaded = detector.load()
    reading = loaded.reader.read(Conversation.from_pair("p", "many words " * 2_000))
    assert reading.truncated == ("response",)
    assert len(reading.windows) == (1 if detector.name == "agentlans" else 2)
    assert all(len(window.ids) == 512 for window in reading.windows)
    if detector.name == "agentlans":
        assert loaded.reader.tags_are_special
        assert loaded.reader._ellipsis[0] in reading.windows[0].ids


def test_only_the_one_that_tells_reasons_apart_gives_one(preset):
    detector, _ = preset
    reason = detector.detect([Conversation.from_messages(MESSAGES)])[0].reason
    assert (reason in (Reason.SHOULD_NOT, Reason.CANNOT)) is (detector.name == "human-centric")
    assert Guard(detector).threshold == 0.5
