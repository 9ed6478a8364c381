"""Each way in which a checkpoint can be wrong is a ModelError that says what to do."""

import json
from pathlib import Path

import pytest

for package in ("torch", "transformers", "onnxscript"):
    pytest.importorskip(package, reason="needs torch, transformers and onnxscript: nox -s encoders")

import checkpoints
import torch
from safetensors.torch import load_file, save_file

from refusal_guard import Conversation, Guard
from refusal_guard.detectors.onnx import OnnxDetector
from refusal_guard.detectors.spec import PRESETS
from refusal_guard.detectors.transformers import TransformersDetector
from refusal_guard.errors import ModelError

REFUSAL, ANSWER = "I'm sorry, but I can't help with bread.", "Here is what matters about bread: start small and keep notes."
BACKENDS = [TransformersDetector, OnnxDetector]


def at(folder: Path, name: str = "protectai", **changes):
    return PRESETS[name].model_copy(update={"repo": str(folder), **changes})


def edit(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in (config | changes).items() if v is not None}))


def refused(detector) -> list[bool]:
    return [verdict.refused for verdict in Guard(detector).scan_many([("p", REFUSAL), ("p", ANSWER)])]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"id2label": {"0": "good", "1": "bad"}}, r"its classes are \['good', 'bad'\], and the spec knows"),
        ({"id2label": {str(i): f"L{i}" for i in range(5)}}, "it has 5 classes, and the spec says 2"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "code of its own"),
        ({"architectures": ["RobertaModel"]}, "no trained classifier head"),
    ],
)
def test_a_config_that_does_not_fit_the_spec(copied, backend, changes, says):
    folder = copied("protectai")
    edit(folder, **changes)
    with pytest.raises(ModelError, match=says):
        backend(at(folder)).load()


@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_label_names_fall_back_to_the_published_order(copied, backend):
    folder = copied("protectai")
    edit(folder, id2label={"0": "LABEL_0", "1": "LABEL_1"}, label2id={"LABEL_0": 0, "LABEL_1": 1})
    assert refused(backend(at(folder))) == [True, False]
    edit(folder, id2label=None, label2id=None)
    assert refused(backend(at(folder))) == [True, False]


def test_without_names_and_order_the_refusal_label_is_asked_for(copied):
    folder = copied("protectai")
    edit(folder, id2label={"0": "LABEL_0", "1": "LABEL_1"}, label2id={"LABEL_0": 0, "LABEL_1": 1})
    with pytest.raises(ModelError, match="Name the ones that mean refusal"):
        OnnxDetector(at(folder, labels=None)).load()
    assert refused(OnnxDetector(at(folder, labels=None, refusal_labels=frozenset({1})))) == [True, False]


def test_swapped_labels_with_swapped_weights_decide_the_same(copied):
    folder = copied("protectai")
    edit(folder, id2label={"0": "Rejection", "1": "normal"}, label2id={"Rejection": 0, "normal": 1})
    weights = load_file(folder / "model.safetensors")
    for name in ("classifier.out_proj.weight", "classifier.out_proj.bias"):
        weights[name] = weights[name].flip(0).contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert refused(TransformersDetector(at(folder))) == [True, False]


def test_a_missing_classifier_head_is_not_filled_with_random_numbers(copied):
    folder = copied("protectai")
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack classifier\..*random numbers"):
        TransformersDetector(at(folder)).load()


def test_a_head_of_another_size_is_refused(copied):
    folder = copied("protectai")
    weights = load_file(folder / "model.safetensors")
    weights["classifier.out_proj.weight"] = torch.zeros(3, 64)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="protectai"):
        TransformersDetector(at(folder)).load()


def test_pickled_weights_are_never_loaded(copied):
    folder = copied("protectai")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"as a pickle.*save_pretrained"):
        TransformersDetector(at(folder)).load()


def test_broken_weights_are_a_model_error(copied):
    folder = copied("protectai")
    for name in ("model.safetensors", "onnx/model.onnx"):
        (folder / name).write_bytes(b"not a model")
    for backend in BACKENDS:
        with pytest.raises(ModelError, match="can't load"):
            backend(at(folder)).load()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_recorded_hash_is_checked_before_loading(copied, backend):
    folder = copied("protectai")
    wrong = {name: "0" * 64 for name in ("model.safetensors", "onnx/model.onnx")}
    with pytest.raises(ModelError, match="not the file that was published"):
        backend(at(folder, sha256=wrong)).load()


def test_a_checkpoint_saved_in_bf16_is_run_in_fp32(copied):
    folder = copied("protectai")
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    edit(folder, dtype="bfloat16")
    detector = TransformersDetector(at(folder))
    assert refused(detector) == [True, False]
    assert {parameter.dtype for parameter in detector.load().network._model.parameters()} == {torch.float32}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tokenizer_saved_with_truncation_does_not_blind_the_detector(copied, backend):
    folder = copied("protectai")
    saved = json.loads((folder / "tokenizer.json").read_text())
    saved["truncation"] = {"direction": "Right", "max_length": 12, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(saved))
    reader = backend(at(folder)).load().reader
    assert len(reader.read(Conversation.from_pair("p", f"{ANSWER} " * 3)).windows[0].ids) > 12


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("text", [None, "not json", "[]"])
def test_a_missing_or_broken_json_file_is_a_model_error(copied, name, text):
    folder = copied("protectai")
    (folder / name).write_text(text or "")
    if text is None:
        (folder / name).unlink()
    with pytest.raises(ModelError, match=name.split(".")[0]):
        OnnxDetector(at(folder)).load()


def test_no_published_graph_says_how_to_make_one(copied):
    folder = copied("minos")
    (folder / "onnx" / "model.onnx").unlink()
    with pytest.raises(ModelError, match="models quantize"):
        OnnxDetector(at(folder, "minos")).load()


def test_a_graph_with_other_inputs(copied):
    import onnx

    folder = copied("protectai")
    graph = onnx.load(folder / "onnx" / "model.onnx")
    graph.graph.input.append(onnx.helper.make_tensor_value_info("bbox", onnx.TensorProto.INT64, ["b", "t"]))
    onnx.save(graph, folder / "onnx" / "model.onnx")
    with pytest.raises(ModelError, match="wants bbox"):
        OnnxDetector(at(folder)).load()


def test_a_graph_with_token_types_is_fed_zeros(copied):
    import onnx

    folder = copied("protectai")
    graph = onnx.load(folder / "onnx" / "model.onnx")
    graph.graph.input.append(onnx.helper.make_tensor_value_info("token_type_ids", onnx.TensorProto.INT64, ["b", "t"]))
    onnx.save(graph, folder / "onnx" / "model.onnx")
    assert refused(OnnxDetector(at(folder))) == [True, False]


def test_a_revision_that_is_not_here_names_those_that_are(cache):
    with pytest.raises(ModelError, match=f"holds {checkpoints.PROTECTAI_COMMIT}"):
        TransformersDetector("protectai", revision="0" * 40, cache=cache).load()
    assert TransformersDetector("protectai", revision="main", cache=cache).load().files.revision == checkpoints.PROTECTAI_COMMIT


def test_an_altered_file_in_the_cache_is_found(cache, tmp_path):
    import shutil

    altered = Path(shutil.copytree(cache, tmp_path / "hub", symlinks=True))
    home = altered / "models--protectai--distilroberta-base-rejection-v1"
    link = home / "snapshots" / checkpoints.PROTECTAI_COMMIT / "model.safetensors"
    blob = home / "blobs" / link.readlink().name
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    link.unlink()
    link.symlink_to(blob)
    with pytest.raises(ModelError, match=r"model.safetensors is not the file that was published"):
        TransformersDetector("protectai", cache=altered).load()


def test_logits_that_are_no_numbers_are_an_error_not_a_verdict(copied):
    from refusal_guard.errors import DetectorError

    folder = copied("protectai")
    weights = load_file(folder / "model.safetensors")
    weights["classifier.out_proj.bias"] = torch.full((2,), float("nan"))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DetectorError, match="finite"):
        Guard(TransformersDetector(at(folder))).scan("p", REFUSAL)
