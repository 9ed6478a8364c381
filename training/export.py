"""From a trained checkpoint to the files of a model folder: ONNX in int8, weights as safetensors, the tokenizer."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import save_file
from torch import nn

from refusal_guard.detectors.embedded.linear import LinearModel

from .encoder import GrownEmbedding, RefusalEncoder

INPUTS = ("input_ids", "token_type_ids")  # no mask: inference pads nothing, and a seventh of the time would go with it
_OPSET = 17


def export_encoder(model: RefusalEncoder, target: Path) -> None:
    """Write the encoder as ONNX with int8 weights (dynamic quantisation, one scale per channel).

    The weights keep to seven bits: with eight, the int8 products of processors without VNNI saturate, and scores differ between machines.
    """
    with TemporaryDirectory() as folder:
        full = Path(folder) / "full.onnx"
        _export_full(model, full)
        quantize_dynamic(
            full, target, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True, op_types_to_quantize=["MatMul", "Gather"]
        )
    onnx.checker.check_model(str(target))


def _export_full(model: RefusalEncoder, target: Path) -> None:
    embeddings = model.bert.embeddings
    if isinstance(embeddings.word_embeddings, GrownEmbedding):
        table = torch.cat((embeddings.word_embeddings.known, embeddings.word_embeddings.fresh)).detach()
        embeddings.word_embeddings = nn.Embedding.from_pretrained(table, padding_idx=0)
    model.bert.set_attn_implementation("eager")  # traced, the others keep a mask
    model.eval()
    example = tuple(torch.ones(2, 8, dtype=torch.int64) for _ in INPUTS)
    free = {name: {0: "rows", 1: "tokens"} for name in INPUTS}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the tracing exporter warns that it is the older one; it is the one quantisation can read
        torch.onnx.export(
            model, example, str(target), dynamo=False, opset_version=_OPSET,
            input_names=list(INPUTS), output_names=["logits"], dynamic_axes={**free, "logits": {0: "rows"}},
        )  # fmt: skip


def export_linear(model: LinearModel, target: Path) -> None:
    """Write the first stage; n-gram weights in half precision, which moves no score by more than 0.001."""
    wide = {"weights", "reason_weights"}
    save_file({name: getattr(model, name).astype("float16" if name in wide else "float32") for name in model.__slots__}, target)
    target.chmod(0o644)  # the library creates it for its owner alone
