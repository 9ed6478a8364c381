"""The ONNX backend on a real graph that is at hand without torch: the encoder inside the package, laid out as a checkpoint of its own.

It wants a third input (token_type_ids) and has three classes, one of them partial. As a classifier of responses alone it is not what it was
trained to be, so what it says is not the subject here.
"""

import json
import shutil
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal_guard import Conversation, Guard, InputError
from refusal_guard.detectors import load_detector
from refusal_guard.detectors.embedded import DEFAULT_MODEL, MODELS
from refusal_guard.detectors.encoder import batches
from refusal_guard.detectors.hub import find
from refusal_guard.detectors.onnx import OnnxDetector
from refusal_guard.detectors.quantize import Quantized
from refusal_guard.detectors.spec import EncoderSpec
from refusal_guard.errors import MissingExtraError, ModelError

TEXTS = [f"i can't help with {'that ' * i}request, but {'here is the rest ' * (i % 3)}" for i in range(1, 33)]
CONVERSATIONS = [Conversation.from_pair("p", text) for text in TEXTS]
LABELS = ["compliance", "partial", "refusal"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("checkpoint")
    model = MODELS / DEFAULT_MODEL
    shutil.copy(model / "encoder.onnx", made / "model.onnx")
    shutil.copy(model / "tokenizer.json", made)
    labels = dict(enumerate(LABELS))
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "id2label": labels, "max_position_embeddings": 128}
    (made / "config.json").write_text(json.dumps(config))
    spec = {"inputs": "response", "num_labels": 3, "refusal_labels": ["refusal"], "partial_labels": ["partial"], "name": "three"}
    (made / "refusal_guard.json").write_text(json.dumps(spec))
    return made


@pytest.fixture(scope="module")
def detector(folder):
    return OnnxDetector(folder)


def test_scores_are_the_sum_of_the_classes_that_decline(detector):
    for found, logits in zip(detector.detect(CONVERSATIONS), detector.logits(CONVERSATIONS), strict=True):
        powers = np.exp(logits[0])
        assert found.score == pytest.approx(1 - powers[0] / powers.sum(), abs=1e-6)
        assert found.label == ("partial" if powers[1] > powers[2] else "refusal")


def test_batches_threads_and_single_calls_agree(detector):
    serial = [detector.detect([conversation])[0].score for conversation in CONVERSATIONS]
    assert [found.score for found in detector.detect(CONVERSATIONS)] == pytest.approx(serial, abs=1e-5)
    scores = [0.0] * 32
    threads = [threading.Thread(target=lambda i=i: scores.__setitem__(i, detector.detect([CONVERSATIONS[i]])[0].score)) for i in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scores == pytest.approx(serial, abs=1e-5)


def test_batches_of_none_and_of_empty_and_full(detector):
    assert detector.detect([]) == []
    found = detector.detect([Conversation.from_pair("p", text) for text in ("", TEXTS[0], " ")])
    assert [one is None for one in found] == [True, False, True]


def test_the_limit_is_the_checkpoints_when_it_is_below_the_specs(detector):
    verdict = Guard(detector).scan("p", "word " * 200_000)
    assert verdict.truncated == ("response",)
    reading = detector.load().reader.read(Conversation.from_pair("p", "word " * 1_000))
    assert [len(window.ids) for window in reading.windows] == [128, 128]


def test_a_checkpoint_folder_is_a_detector_by_name(folder):
    assert load_detector(f"onnx:{folder}").name == "three"
    assert Guard(f"onnx:{folder}").scan("p", TEXTS[0]).detector == "three"


def test_a_checkpoint_without_a_spec_says_what_it_needs(folder, tmp_path):
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "refusal_guard.json").unlink()
    with pytest.raises(ModelError, match=r"refusal_guard\.json.*The least it holds"):
        load_detector(bare)


def test_int8_is_made_checked_and_used(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    detector = OnnxDetector(folder, int8=True)
    with pytest.raises(ModelError, match=f"models quantize {folder}"):
        detector.load()
    made = Quantized.of(OnnxDetector(folder).load().files)
    made.make()
    exact = OnnxDetector(folder).detect(CONVERSATIONS)
    assert [found.score for found in detector.detect(CONVERSATIONS)] == pytest.approx([found.score for found in exact], abs=0.2)
    monkeypatch.chdir(folder.parent)
    assert OnnxDetector(Path(folder.name), int8=True).load().files.folder == Path(folder.name)
    made.graph.write_bytes(made.graph.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="not the file that was made"):
        OnnxDetector(folder, int8=True).load()


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed here")
def test_what_needs_torch_names_its_extra(folder, tmp_path):
    bare = Path(shutil.copytree(folder, tmp_path / "weights"))
    (bare / "model.onnx").rename(bare / "model.safetensors")
    with pytest.raises(MissingExtraError, match=r"refusal-guard\[int8,transformers\]"):
        Quantized.of(find(EncoderSpec.from_folder(bare))).make()
    with pytest.raises(MissingExtraError, match=r"refusal-guard\[transformers\]"):
        load_detector(f"transformers:{folder}")


@pytest.mark.parametrize("options", [{"device": "tpu"}, {"threads": 0}, {"max_tokens": 600}])
def test_bad_settings_are_input_errors(folder, options):
    with pytest.raises(InputError):
        OnnxDetector(folder, **options)


@pytest.mark.parametrize(
    ("padding", "expected"),
    [(None, [[1], [0, 3], [4], [2]]), (64, [[1], [0, 3], [4, 2]])],
)
def test_a_cpu_runs_equal_lengths_and_a_gpu_fills_a_budget(padding, expected):
    assert list(batches([30, 60, 5, 30, 20], padding)) == expected


@given(st.lists(st.integers(1, 600), max_size=40), st.none() | st.integers(1, 4_000))
def test_every_text_is_in_one_batch_within_the_budget(lengths, padding):
    found = list(batches(lengths, padding))
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or longest * len(batch) <= (padding or 1_024)
        assert padding or {lengths[i] for i in batch} == {longest}


def test_long_texts_run_alone_on_a_cpu():
    assert list(batches([900, 900, 10, 10], None)) == [[0], [1], [2, 3]]
