"""Speed of the encoder backends against transformers pipelines, with random weights at the true sizes of the published classifiers.

    python benchmarks/encoders.py [--models distilroberta,modernbert-large] [--texts N] [--repetitions N] [--quick]

Needs `pip install 'refusal-guard[transformers,int8]'`. Random weights have the speed of the published ones and say nothing of accuracy;
the agreement of int8 with fp32 is that of random weights, whose scores all lie near one half, the hardest place to agree.

All ways read the same tokens of the same texts (log-normal lengths, median 180 tokens, sigma 0.9), in one thread, in one process, and
take turns, warmed up, in an order that is shuffled for each repetition. The result is the median of CPU seconds, which neighbours on
the machine disturb less than the clock. bf16 is left out where the processor has no AVX-512, as it is many times slower than fp32 there.
`--quick` takes tiny sizes, to try the script out; it writes no result.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSequenceClassification,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    pipeline,
)

from refusal_guard import Conversation
from refusal_guard.detectors.encoder import EncoderDetector
from refusal_guard.detectors.hub import ModelFiles
from refusal_guard.detectors.onnx import OnnxDetector
from refusal_guard.detectors.quantize import Quantized
from refusal_guard.detectors.spec import PRESETS, EncoderSpec
from refusal_guard.detectors.transformers import TransformersDetector
from refusal_guard.files import open_rows

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "encoders.json"
SAMPLES = HERE.parent / "examples" / "transcripts.jsonl"
MEDIAN_TOKENS, SIGMA, SEED = 180, 0.9, 7
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
LABELS = {"id2label": {0: "NORMAL", 1: "REJECTION"}, "label2id": {"NORMAL": 0, "REJECTION": 1}}
IDS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
Way = Callable[[], object]


@dataclass(frozen=True)
class Shape:
    """One architecture at one size; `longest` is where every way cuts, in tokens."""

    name: str
    config: PretrainedConfig
    longest: int
    texts: int
    spec: EncoderSpec


def shapes(*, quick: bool) -> list[Shape]:
    """Return the sizes of protectai/distilroberta-base-rejection-v1 and of NousResearch/Minos-v1, or tiny ones."""
    small: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 2} if quick else {}
    roberta = {"vocab_size": 50_265, "num_hidden_layers": 6, "max_position_embeddings": 514, "type_vocab_size": 1} | IDS | LABELS | small
    large = {"hidden_size": 1_024, "intermediate_size": 2_624, "num_attention_heads": 16, "num_hidden_layers": 28}
    modern = large | {"vocab_size": 50_368, "classifier_pooling": "mean", "cls_token_id": 0, "sep_token_id": 2} | IDS | LABELS | small
    response = {"labels": ("NORMAL", "REJECTION"), "refusal_labels": {"REJECTION"}, "inputs": "response", "windows": "head"}
    return [
        Shape("distilroberta", RobertaConfig(**roberta), 512, 96, _spec(PRESETS["protectai"], 512, response)),
        Shape("modernbert-large", ModernBertConfig(**modern), 2_000, 16, _spec(PRESETS["minos"], 2_000, response)),
    ]


def _spec(preset: EncoderSpec, longest: int, fields: dict[str, Any]) -> EncoderSpec:
    return EncoderSpec(**{"name": preset.name, "repo": "-", "limit": longest, "max_tokens": longest} | fields)


def checkpoint(shape: Shape, folder: Path) -> EncoderSpec:
    """Write a checkpoint with random weights and a tokenizer of the right vocabulary; returns its spec."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=shape.config.vocab_size, special_tokens=SPECIALS, show_progress=False)
    tokenizer.train_from_iterator(words(), trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), SPECIALS, strict=True))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=shape.longest, **names)
    wrapped.model_input_names = ["input_ids", "attention_mask"]
    wrapped.save_pretrained(folder)
    torch.manual_seed(SEED)
    AutoModelForSequenceClassification.from_config(shape.config).save_pretrained(folder)
    return shape.spec.model_copy(update={"repo": str(folder)})


def words() -> list[str]:
    conversations = [Conversation.from_row(record.row) for record in open_rows(str(SAMPLES)) if record.row is not None]
    return [f" {word}" for conversation in conversations for word in (conversation.prompt + " " + conversation.response).split()]


def texts_of(shape: Shape, folder: Path, count: int) -> list[str]:
    """Return texts of log-normal lengths in tokens, cut at the shape's longest."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    draw = random.Random(SEED)
    vocabulary = words()
    found = []
    for _ in range(count):
        length = min(shape.longest - 2, max(4, round(draw.lognormvariate(np.log(MEDIAN_TOKENS), SIGMA))))
        encoding = tokenizer.encode("".join(draw.choices(vocabulary, k=length)).strip(), add_special_tokens=False)
        found.append(tokenizer.decode(encoding.ids[:length]).strip())
    return found


def ways_of(spec: EncoderSpec, texts: Sequence[str]) -> tuple[dict[str, Way], dict[str, Any]]:
    """Return what is timed, by name, and how the ways agree."""
    Quantized.of(ModelFiles(spec, Path(spec.repo))).make()
    conversations = [Conversation.from_pair("", text) for text in texts]
    detectors: dict[str, EncoderDetector] = {
        "torch fp32": TransformersDetector(spec),
        "ONNX Runtime int8": OnnxDetector(spec, int8=True),
    }
    if torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        detectors["torch bf16"] = TransformersDetector(spec, dtype="bf16")
    classify = pipeline("text-classification", model=spec.repo, tokenizer=spec.repo, device="cpu", dtype=torch.float32)
    options: dict[str, Any] = {"max_length": spec.max_tokens, "truncation": True, "return_token_type_ids": False}
    theirs = [
        [row["score"] for row in sorted(classify(text, top_k=None, function_to_apply="none", **options), key=_label)] for text in texts
    ]
    logits = {name: np.concatenate(detector.logits(conversations)) for name, detector in detectors.items()}
    ways: dict[str, Way] = {
        "pipeline one by one": lambda: [classify(text, **options) for text in texts],
        "pipeline(batch_size=16)": lambda: classify(list(texts), batch_size=16, **options),
    }
    ways |= {name: lambda detector=detector: detector.detect(conversations) for name, detector in detectors.items()}  # type: ignore[misc]
    return ways, agreement(np.array(theirs), logits)


def _label(row: dict[str, Any]) -> int:
    return int(LABELS["label2id"][row["label"]])  # type: ignore[index]


def agreement(theirs: np.ndarray, logits: dict[str, np.ndarray]) -> dict[str, Any]:
    exact, int8 = logits["torch fp32"], logits["ONNX Runtime int8"]
    return {
        "fp32_logits_against_the_pipeline": float(np.abs(theirs - exact).max()),
        "int8_logits_against_fp32": float(np.abs(int8 - exact).max()),
        "int8_same_verdict": float(((int8[:, 1] > int8[:, 0]) == (exact[:, 1] > exact[:, 0])).mean()),
    }


def cpu_seconds(ways: dict[str, Way], repetitions: int) -> dict[str, float]:
    """Return each way's median CPU seconds; they take turns in shuffled order."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    draw = random.Random(SEED)
    for _ in range(repetitions):
        for name in draw.sample(list(ways), k=len(ways)):
            started = time.process_time()
            ways[name]()
            spent[name].append(time.process_time() - started)
            print(f"  {name:24} {spent[name][-1]:8.2f} s", flush=True)
    return {name: statistics.median(seconds) for name, seconds in spent.items()}


def measure(shape: Shape, count: int, repetitions: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        folder = Path(scratch) / shape.name
        spec = checkpoint(shape, folder)
        texts = texts_of(shape, folder, count)
        ways, agrees = ways_of(spec, texts)
        seconds = cpu_seconds(ways, repetitions)
    one_by_one, batched = seconds["pipeline one by one"], seconds["pipeline(batch_size=16)"]
    return {
        "texts": len(texts),
        "cpu_seconds": seconds,
        "times_one_by_one": {name: one_by_one / spent for name, spent in seconds.items()},
        "int8_times_batch_of_16": batched / seconds["ONNX Runtime int8"],
        **agrees,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="distilroberta,modernbert-large")
    parser.add_argument("--texts", type=int, help="texts a model (default 96 and 16)")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for shape in shapes(quick=options.quick):
        if shape.name in options.models.split(","):
            print(shape.name, flush=True)
            found[shape.name] = measure(shape, options.texts or shape.texts, options.repetitions)
    print(json.dumps(found, indent=2))
    if not options.quick:
        RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
