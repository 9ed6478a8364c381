"""Tiny checkpoints with the architectures, tokenizers, labels and file layout of the published classifiers, trained in seconds.

They show that loading, templates, windows and backends work. What they learn is a dozen sentence patterns: they say nothing of the
published weights.
"""

import hashlib
import itertools
import shutil
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

TOPICS = [
    *("bread", "tents", "kites", "engines", "violins", "tomatoes", "bridges", "sorting", "glaciers", "poems", "taxes", "chess"),
    *("soap", "whales", "radios", "clocks", "ladders", "vaccines", "volcanoes", "pottery"),
]
UNSEEN_TOPICS = ["mirrors", "saddles", "orchids", "turbines"]
ASKINGS = ["How do I work with {}?", "Tell me about {}.", "Write a note on {}.", "Explain {} to me.", "What should I know about {}?"]
REFUSALS = [
    *("I'm sorry, but I can't help with {}.", "I cannot assist with that request about {}.", "I won't write about {}."),
    *("Sorry, I am not able to discuss {}.", "I must decline to talk about {}.", "As an AI, I cannot provide that on {}."),
    *("I'm unable to help you with {}.", "I can't do that, {} is not something I will cover."),
]
ANSWERS = [
    *("Here is what matters about {}: start small and keep notes.", "{} are easy once you know the basics.", "Sure! First, look at {}."),
    *("The history of {} goes back a long way.", "You need three things for {}: time, care and a plan.", "Most people enjoy {} in spring."),
    *("To begin with {}, measure twice and cut once.", "Of course. {} come in many sizes and colours."),
]
PAIRS = [
    (asking.format(topic), template.format(topic), int(templates is REFUSALS))
    for topic, templates in itertools.product(TOPICS, (REFUSALS, ANSWERS))
    for asking, template in zip(ASKINGS, templates[TOPICS.index(topic) % 4 :], strict=False)
]
UNSEEN_PAIRS = [
    (ASKINGS[i % 5].format(topic), template.format(topic), int(templates is REFUSALS))
    for topic, templates in itertools.product(UNSEEN_TOPICS, (REFUSALS, ANSWERS))
    for i, template in enumerate(templates)
]
MINOS_COMMIT = "edb1e8b" + "0" * 33
PROTECTAI_COMMIT = "65584967c3f22ff7723e5370c65e0e76791e6055"


def minos_text(prompt: str, response: str) -> str:
    return f"<|user|>\n{prompt}\n<|assistant|>\n{response}"


def byte_pairs(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((minos_text(prompt, response) for prompt, response, _ in PAIRS), trainer)
    return tokenizer


def train(model: torch.nn.Module, tokenizer: Tokenizer, texts: list[str], epochs: int) -> None:
    """Fit a classifier to PAIRS; one thread, since more of them make steps this small ten times as slow."""
    labels = torch.tensor([label for _, _, label in PAIRS])
    pad = model.config.pad_token_id
    encoded = [tokenizer.encode(text).ids for text in texts]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    order = torch.Generator().manual_seed(1)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(texts), generator=order).split(20):
            width = max(len(encoded[i]) for i in rows)
            ids = torch.tensor([encoded[i] + [pad] * (width - len(encoded[i])) for i in rows])
            loss = model(input_ids=ids, attention_mask=(ids != pad).long(), labels=labels[rows]).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    model.eval()


def tiny_minos(folder: Path, *, special_tags: bool = False) -> Path:
    """A ModernBERT pair classifier of 0.2 million parameters; its tags are plain text, or tokens of their own."""
    torch.manual_seed(0)
    tokenizer = byte_pairs(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    tokenizer.normalizer = normalizers.NFC()
    if special_tags:
        tokenizer.add_special_tokens([AddedToken(tag, special=True) for tag in ("<|user|>", "<|assistant|>")])
    ids = {name: tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]")}
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=list(ids.items()))
    config = ModernBertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        local_attention=32,
        global_attn_every_n_layers=3,
        max_position_embeddings=512,
        classifier_pooling="mean",
        pad_token_id=tokenizer.token_to_id("[PAD]"),
        cls_token_id=ids["[CLS]"],
        sep_token_id=ids["[SEP]"],
        bos_token_id=ids["[CLS]"],
        eos_token_id=ids["[SEP]"],
        id2label={0: "Non-refusal", 1: "Refusal"},
        label2id={"Non-refusal": 0, "Refusal": 1},
    )
    model = ModernBertForSequenceClassification(config)
    train(model, tokenizer, [minos_text(prompt, response) for prompt, response, _ in PAIRS], epochs=8)
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def tiny_protectai(folder: Path) -> Path:
    """A RoBERTa response classifier of 0.1 million parameters that takes 64 tokens."""
    torch.manual_seed(0)
    tokenizer = byte_pairs(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    config = RobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=66,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        id2label={0: "NORMAL", 1: "REJECTION"},
        label2id={"NORMAL": 0, "REJECTION": 1},
    )
    model = RobertaForSequenceClassification(config)
    train(model, tokenizer, [response for _, response, _ in PAIRS], epochs=10)
    names = {"unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def untrained(folder: Path, name: str) -> Path:
    """A checkpoint of a further published classifier's architecture, labels and tags, with random weights: enough to compare numbers."""
    torch.manual_seed(0)
    tokenizer = byte_pairs(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    if name == "agentlans":
        tokenizer.add_special_tokens([AddedToken(tag, special=True) for tag in ("<|system|>", "<|user|>", "<|assistant|>", "<|...|>")])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    if name == "garak":
        labels = {0: "refusal", 1: "non-refusal"}
        config = ModernBertConfig(**sizes, cls_token_id=0, sep_token_id=2, max_position_embeddings=512, id2label=labels)
    elif name == "agentlans":
        config = BertConfig(**sizes, max_position_embeddings=512, id2label={0: "Non-refusal", 1: "Refusal"})
    else:
        config = RobertaConfig(**sizes, max_position_embeddings=514, num_labels=5)
    config.initializer_range = 0.5
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>")
    wrapped.save_pretrained(folder)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def put_into_cache(folder: Path, cache: Path, repo: str, commit: str) -> Path:
    """Lay a folder out as the hub's client does: blobs named by their hashes, links to them in the snapshot, refs; returns the snapshot."""
    home = cache / ("models--" + repo.replace("/", "--"))
    snapshot = home / "snapshots" / commit
    (home / "blobs").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        large = path.suffix in (".safetensors", ".onnx")
        digest = hashlib.sha256(data) if large else hashlib.sha1(f"blob {len(data)}\0".encode() + data)
        blob = home / "blobs" / digest.hexdigest()
        shutil.copyfile(path, blob)
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return snapshot
