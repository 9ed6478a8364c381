"""The int8 graph: made from a published graph or from weights, kept with its hashes, and used only as made."""

import json

import numpy as np
import pytest

for package in ("torch", "transformers", "onnxscript"):
    pytest.importorskip(package, reason="needs torch, transformers and onnxscript: nox -s encoders")

import checkpoints

from refusal_guard import Conversation, Guard
from refusal_guard.detectors.onnx import OnnxDetector
from refusal_guard.detectors.quantize import Quantized
from refusal_guard.errors import ModelError

CONVERSATIONS = [Conversation.from_pair(prompt, response) for prompt, response, _ in checkpoints.UNSEEN_PAIRS]
REFUSED = [bool(label) for _, _, label in checkpoints.UNSEEN_PAIRS]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_int8_decides_as_fp32_and_lies_in_a_smaller_file(cache, found, tmp_path):
    graph = Quantized.of(found("protectai")).make()
    assert graph.is_relative_to(tmp_path)
    assert graph.stat().st_size < found("protectai").graph.stat().st_size
    detector = OnnxDetector("protectai", int8=True, cache=cache)
    assert [verdict.refused for verdict in Guard(detector).scan_many(CONVERSATIONS)] == REFUSED
    exact = np.concatenate(OnnxDetector("protectai", cache=cache).logits(CONVERSATIONS))
    assert 0 < np.abs(np.concatenate(detector.logits(CONVERSATIONS)) - exact).max() < 1.0


def test_a_model_without_a_published_graph_is_exported_from_its_weights(copied):
    from refusal_guard.detectors.hub import ModelFiles
    from refusal_guard.detectors.spec import PRESETS

    folder = copied("minos")
    (folder / "onnx" / "model.onnx").unlink()
    spec = PRESETS["minos"].model_copy(update={"repo": str(folder)})
    Quantized.of(ModelFiles(spec, folder)).make()
    verdicts = Guard(OnnxDetector(spec, int8=True)).scan_many(CONVERSATIONS)
    assert [verdict.refused for verdict in verdicts] == REFUSED


def test_without_a_graph_the_error_names_the_command(cache):
    with pytest.raises(ModelError, match="refusal-guard models quantize protectai"):
        OnnxDetector("protectai", int8=True, cache=cache).load()


def test_an_altered_graph_or_another_source_is_refused(cache, found):
    made = Quantized.of(found("protectai"))
    made.make()
    note = made.folder / "model.json"
    recorded = json.loads(note.read_text())
    for change, says in (
        ({"source_sha256": "0" * 64}, "made from another onnx/model.onnx"),
        ({"revision": "0" * 40}, "was made from protectai/"),
        ({"sha256": "0" * 64}, "not the file that was made"),
    ):
        note.write_text(json.dumps(recorded | change))
        with pytest.raises(ModelError, match=says):
            OnnxDetector("protectai", int8=True, cache=cache).load()
