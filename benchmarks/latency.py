"""Speed and size: import, first verdict, one pair at a time against a distilroberta-sized pipeline, bulk scan, memory.

    python benchmarks/latency.py [--every N] [--scan-rows N] [--skip pipeline,scan]

Needs REFUSAL_GUARD_DATA (a folder with train*.jsonl.gz and eval/) for the rows; without it the sample transcripts are used. The pipeline
is a distilroberta-base classifier with random weights, called as LLM Guard calls it (transformers pipeline, fp32, 128 tokens, one text a
call); it needs `pip install torch transformers`. Ours and theirs take turns on every row, on one core, so drift hits both.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from refusal_guard import Conversation, Guard
from refusal_guard.files import open_rows

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "latency.json"
SAMPLES = HERE.parent / "examples" / "transcripts.jsonl"
REPETITIONS = 7
Pair = tuple[str, str]


def pairs_of(paths: Sequence[Path]) -> list[Pair]:
    conversations = [Conversation.from_row(record.row) for path in paths for record in open_rows(str(path)) if record.row is not None]
    return [(conversation.prompt, conversation.response) for conversation in conversations]


def data_files(pattern: str) -> list[Path]:
    folder = os.environ.get("REFUSAL_GUARD_DATA")
    return sorted(Path(folder).glob(pattern)) if folder else []


def process_seconds(code: str) -> list[float]:
    """Time whole processes, after one that warms the disk."""
    seconds = []
    for _ in range(REPETITIONS + 1):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def start_up() -> dict[str, float]:
    """Median seconds of the bare interpreter, of the import above it, and of a process up to its first verdict."""
    verdict = "from refusal_guard import Guard; Guard().scan('Why?', 'I am not sure that I can help with this, however, let us see.')"
    bare = statistics.median(process_seconds("pass"))
    return {
        "interpreter_seconds": bare,
        "import_seconds": statistics.median(process_seconds("import refusal_guard")) - bare,
        "first_verdict_seconds": statistics.median(process_seconds(verdict)),
    }


def pipeline() -> Callable[[str], object]:
    """Return a distilroberta-sized text-classification pipeline with random weights and a 50,265-token vocabulary."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForSequenceClassification
    from transformers import pipeline as make

    torch.set_num_threads(1)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    texts = itertools.chain.from_iterable(pairs_of([path for path in data_files("train*.jsonl.gz")] or [SAMPLES]))
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=50_265, special_tokens=special, show_progress=False))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=512, pad_token="<pad>", eos_token="</s>", bos_token="<s>"
    )
    config = RobertaConfig(vocab_size=50_265, num_hidden_layers=6, max_position_embeddings=514, type_vocab_size=1, num_labels=2)
    classify = make("text-classification", model=RobertaForSequenceClassification(config).eval(), tokenizer=wrapped, device="cpu")
    return lambda text: classify(text, return_token_type_ids=False, max_length=128, truncation=True)


def one_by_one(pairs: Sequence[Pair], theirs: Callable[[str], object] | None) -> dict[str, Any]:
    """Time every pair: the median of three calls each, ours and theirs in turn."""
    guard = Guard()
    guard.scan(*pairs[0])
    ours_ms, theirs_ms = [], []
    for prompt, response in pairs:
        mine, other = [], []
        for _ in range(3):
            mine.append(_milliseconds(guard.scan, prompt, response))
            if theirs:
                other.append(_milliseconds(theirs, response))
        ours_ms.append(statistics.median(mine))
        theirs_ms.append(statistics.median(other) if other else float("nan"))
    found: dict[str, Any] = {"pairs": len(pairs), "ours_ms": _spread(ours_ms)}
    if theirs:
        ratios = sorted(a / b for a, b in zip(ours_ms, theirs_ms, strict=True))
        found |= {
            "pipeline_ms": _spread(theirs_ms),
            "times_cheaper_on_average": sum(theirs_ms) / sum(ours_ms),
            "dearest_pair_over_mean_pipeline": max(ours_ms) / statistics.mean(theirs_ms),
            "dearest_pair_over_its_own_pipeline_call": ratios[-1],
        }
    return found


def _milliseconds(call: Callable[..., object], *arguments: str) -> float:
    started = time.perf_counter()
    call(*arguments)
    return (time.perf_counter() - started) * 1_000


def _spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    at = {"median": 0.5, "p95": 0.95, "p99": 0.99}
    return {"mean": statistics.mean(ordered), **{k: ordered[int(q * (len(ordered) - 1))] for k, q in at.items()}, "max": ordered[-1]}


def share_read_closely(pairs: Sequence[Pair]) -> float:
    """Return the share of pairs that the first stage passes on to the encoder."""
    from refusal_guard.detectors.embedded import EmbeddedDetector
    from refusal_guard.text import clip, sentences

    detector = EmbeddedDetector()
    detector.detect([Conversation.from_pair("p", "r")])
    settle, runtime = detector.config.settle, detector._runtime
    assert runtime is not None
    read = [runtime.linear.read(found) for _, response in pairs if (found := sentences(clip(response)[0]))]
    return statistics.mean(settle.passes_on(first, float(scores.max())) for first, scores in read)


def bulk(rows: int) -> dict[str, float]:
    """Scan a gzip file of that many rows with the command; rows that come round again carry their number, so none is a duplicate."""
    pairs = pairs_of(data_files("train*.jsonl.gz") or [SAMPLES])
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rows.jsonl.gz"
        with gzip.open(source, "wt", compresslevel=1) as file:
            for i, (prompt, response) in zip(range(rows), itertools.cycle(pairs), strict=False):
                file.write(json.dumps({"id": i, "prompt": f"{prompt} ({i})", "response": response}) + "\n")
        command = ["-m", "refusal_guard.cli", "scan", str(source), "--out", str(Path(folder) / "out.jsonl")]
        measured = "import resource, subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], check=True, capture_output=True);"
        measured += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", measured, *command], check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - started
    return {"rows": rows, "seconds": seconds, "rows_per_second": rows / seconds, "peak_memory_mb": int(done.stdout) / 1024}


def sizes() -> dict[str, float]:
    """Return megabytes of the built wheel, of its model, and of a fresh environment with nothing but the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, str(HERE.parent)]
        subprocess.run(build, check=True, capture_output=True)
        wheel = next(Path(folder).glob("*.whl"))
        environment = Path(folder) / "environment"
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(environment / "bin" / "pip"), "install", "-q", str(wheel)], check=True, capture_output=True)
        return {
            "wheel_mb": wheel.stat().st_size / 1e6,
            "model_mb": _folder_bytes(HERE.parent / "src" / "refusal_guard" / "models") / 1e6,
            "environment_mb": _folder_bytes(environment) / 1e6,
        }


def _folder_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=4, help="time every Nth pair (default 4)")
    parser.add_argument("--scan-rows", type=int, default=100_000)
    parser.add_argument("--skip", default="", help="comma-separated: start_up, pipeline, one_by_one, bulk, sizes")
    options = parser.parse_args()
    skip = set(filter(None, options.skip.split(",")))
    pairs = pairs_of([path for path in data_files("eval/*.gz") if path.name.startswith(("xstest", "speechmap"))] or [SAMPLES])
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "start_up": start_up,
        "one_by_one": lambda: one_by_one(pairs[:: options.every], None if "pipeline" in skip else pipeline()),
        "read_closely": lambda: {"share": share_read_closely(pairs)},
        "bulk": lambda: bulk(options.scan_rows),
        "sizes": sizes,
    }
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, measure in parts.items():
        if name not in skip:
            results[name] = measure()
            print(name, json.dumps(results[name]), flush=True)
            RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
