import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import COMMIT, Hub

from refusal_guard.detectors.hub import ModelFiles, find, verify
from refusal_guard.detectors.spec import PRESETS
from refusal_guard.errors import ModelError

SPEC = PRESETS["protectai"]
NAME = "models--protectai--distilroberta-base-rejection-v1"
FILES = {
    "config.json": b'{"model_type": "roberta"}',
    "tokenizer.json": b'{"version": "1.0"}',
    "model.safetensors": bytes(range(256)) * 100_000,
    "onnx/model.onnx": b"graph" * 1_000,
    "onnx/model.onnx.data": b"weights" * 1_000,
    "training_args.bin": b"a pickle",
    "README.md": b"a card",
}
COMMAND = [sys.executable, "-m", "refusal_guard.cli", "models"]


def snapshot(cache: Path, commit: str = COMMIT, name: str = NAME) -> Path:
    folder = cache / name / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def run(hub_url: str, cache: Path, *arguments: str, offline: bool = False):
    """Run a models command against a hub of our own; xet is the hub's other, optional transport. A busy machine gets its time."""
    ours = {"HF_ENDPOINT": hub_url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": str(int(offline)), "NO_PROXY": "*"}
    ours |= {"HF_HUB_DOWNLOAD_TIMEOUT": "60", "HF_HUB_ETAG_TIMEOUT": "60"}
    done = subprocess.run([*COMMAND, *arguments], env=os.environ | ours, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_a_pinned_revision_and_a_branch_are_found_without_network(tmp_path):
    folder = snapshot(tmp_path)
    assert (find(SPEC, tmp_path).folder, find(SPEC, tmp_path).revision) == (folder, COMMIT)
    (tmp_path / NAME / "refs").mkdir()
    (tmp_path / NAME / "refs" / "main").write_text(COMMIT)
    assert find(SPEC.changed(revision="main"), tmp_path).revision == COMMIT


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda cache: None, r"not in the cache .*models fetch protectai\. Without network, .*copy the folder models--protectai.* to "),
        (lambda cache: snapshot(cache, "a" * 40), f"revision {COMMIT} is not in .*holds {'a' * 40}"),
        (
            lambda cache: snapshot(cache, name=NAME.replace("protectai", "ProtectAI", 1)),
            "case-sensitive, so rename that folder to models--p",
        ),
        (lambda cache: (cache / NAME / "snapshots" / COMMIT).mkdir(parents=True), "holds"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(tmp_path, prepare, says):
    prepare(tmp_path)
    with pytest.raises(ModelError, match=says) as caught:
        find(SPEC, tmp_path)
    assert caught.value.detector == "protectai"


def test_a_folder_that_is_not_there_is_not_taken_for_a_repository(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        find(SPEC.model_copy(update={"repo": str(tmp_path / "nowhere")}), tmp_path)


def test_a_missing_file_a_pickle_and_a_missing_graph_are_named(tmp_path):
    files = ModelFiles(SPEC.model_copy(update={"repo": str(tmp_path), "onnx_file": None}), tmp_path)
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing"):
        files["tokenizer.json"]
    with pytest.raises(ModelError, match="no ONNX graph"):
        _ = files.graph
    with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
        _ = files.weights
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="never loaded"):
        _ = files.weights
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    (tmp_path / "model-00001-of-00001.safetensors").write_bytes(b"")
    assert [path.name for path in files.weights] == ["model-00001-of-00001.safetensors"]


def test_hashes_come_from_the_spec_or_from_the_blobs_name(tmp_path):
    folder = snapshot(tmp_path)
    files = find(SPEC, tmp_path)
    assert verify(files, [files["config.json"]]) == [("config.json", False)]
    known = ModelFiles(SPEC.model_copy(update={"sha256": {"config.json": "0" * 64}}), folder, COMMIT)
    with pytest.raises(ModelError, match=r"config\.json is not the file that was published"):
        verify(known, [known["config.json"]])


@pytest.mark.parametrize(("option", "weights"), [([], "model.safetensors"), (["--onnx"], "onnx/model.onnx.data")])
def test_fetch_downloads_what_a_detector_reads_and_no_more(tmp_path, option, weights):
    with Hub(SPEC.repo, FILES) as hub:
        done = run(hub.url, tmp_path, "fetch", "protectai", *(option or ["--weights"]))
        assert done.returncode == 0, done.stderr
        assert "%" in done.stderr
        assert f"copy {tmp_path / 'hub' / NAME}" in done.stdout
        folder = tmp_path / "hub" / NAME / "snapshots" / COMMIT
        assert (folder / weights).read_bytes() == FILES[weights]
        assert not (folder / "training_args.bin").exists()
        hub.requests.clear()
        assert run(hub.url, tmp_path, "fetch", "protectai", *(option or ["--weights"])).returncode == 0
        assert not [path for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]


def test_a_broken_download_is_resumed(tmp_path):
    with Hub(SPEC.repo, FILES, cut=15_000_000) as hub:
        assert run(hub.url, tmp_path, "fetch", "protectai", "--weights").returncode == 0
        assert [span for method, path, span in hub.requests if method == "GET" and span]
    assert find(SPEC, tmp_path / "hub")["model.safetensors"].read_bytes() == FILES["model.safetensors"]


def test_altered_bytes_are_found_by_their_hash(tmp_path):
    with Hub(SPEC.repo, FILES, alter=True) as hub:
        done = run(hub.url, tmp_path, "fetch", "protectai", "--weights")
    assert done.returncode == 2
    assert "not the file that was published" in done.stderr


@pytest.mark.parametrize(
    ("repo", "without", "says"),
    [
        ("someone/else", [], "no such repository"),
        (SPEC.repo, ["model.safetensors"], "holds no safetensors weights"),
        (SPEC.repo, ["tokenizer.json"], "holds no tokenizer.json"),
    ],
)
def test_what_the_hub_does_not_have_is_said(tmp_path, repo, without, says):
    with Hub(repo, {name: data for name, data in FILES.items() if name not in without}) as hub:
        done = run(hub.url, tmp_path, "fetch", "protectai", "--weights")
    assert done.returncode == 2
    assert says in done.stderr


def test_a_repository_of_pickles_is_not_fetched(tmp_path):
    with Hub(SPEC.repo, {"config.json": b"{}", "tokenizer.json": b"{}", "pytorch_model.bin": b"p"}) as hub:
        done = run(hub.url, tmp_path, "fetch", "protectai", "--weights")
    assert "only a pickle, which is never loaded" in done.stderr


def test_without_network_fetch_says_what_to_copy_where(tmp_path):
    done = run("http://127.0.0.1:9", tmp_path, "fetch", "protectai", offline=True)
    assert done.returncode == 2
    assert f"copy the folder {NAME} (328 MB)" in done.stderr
    assert f"to {tmp_path / 'hub'}" in done.stderr
