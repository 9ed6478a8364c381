import json
import os
import subprocess
import sys

import pytest

from refusal_guard.detectors.spec import PRESETS

COMMAND = [sys.executable, "-m", "refusal_guard.cli", "models"]


@pytest.fixture
def run(tmp_path):
    def call(*arguments):
        ours = {"HF_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "COLUMNS": "200"}
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)], env=os.environ | ours, capture_output=True, text=True, timeout=120, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return call


@pytest.fixture
def checkpoint(tmp_path):
    """A folder with all that the commands look at, but weights that are none."""
    folder = tmp_path / "ours"
    folder.mkdir()
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "id2label": {"0": "OK", "1": "REFUSAL"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "refusal_guard.json").write_text('{"inputs": "response", "refusal_labels": ["REFUSAL"]}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "model.onnx").write_bytes(b"")
    return folder


def test_list_names_every_detector_with_licence_and_definition(run):
    done = run("list")
    assert done.returncode == 0
    for spec in PRESETS.values():
        assert spec.name in done.stdout
    rows = json.loads(run("list", "--json").stdout)
    assert [row["name"] for row in rows] == ["embedded", "cascade", *PRESETS]
    assert all(row["licence"] and row["definition"] for row in rows)
    assert [row["path"] is None for row in rows] == [False, *[True] * (1 + len(PRESETS))]


def test_info_tells_how_a_model_is_asked_and_how_to_get_it(run):
    shown = run("info", "minos").stdout
    assert "NousResearch/Minos-v1" in shown
    assert "Apache-2.0" in shown
    assert "refusal-guard models fetch minos" in shown
    assert "Without network" in shown
    assert "threshold" in run("info", "embedded").stdout
    assert "needs both" in run("info", "cascade").stdout


def test_info_and_verify_of_ones_own_folder(run, checkpoint):
    assert str(checkpoint) in run("info", checkpoint).stdout
    for kind in ("--onnx", "--weights"):
        done = run("verify", checkpoint, kind)
        assert done.returncode == 0
        assert "no hash of it is recorded" in done.stdout


def test_verify_finds_another_file_and_another_label(run, checkpoint):
    (checkpoint / "refusal_guard.json").write_text(
        json.dumps({"inputs": "response", "refusal_labels": ["REFUSAL"], "sha256": {"tokenizer.json": "0" * 64}})
    )
    assert "not the file that was published" in run("verify", checkpoint).stderr
    (checkpoint / "refusal_guard.json").write_text('{"inputs": "response", "refusal_labels": ["NO"]}')
    done = run("verify", checkpoint)
    assert done.returncode == 2
    assert "it has no class 'NO'" in done.stderr


def test_what_comes_with_the_package_needs_no_fetching(run, checkpoint):
    assert run("fetch", "embedded").returncode == 0
    assert run("verify", "embedded").returncode == 0
    assert "already" in run("fetch", checkpoint).stdout


def test_quantize_makes_a_graph_that_verify_checks(run, tmp_path):
    import shutil

    from refusal_guard.detectors.embedded import DEFAULT_MODEL, MODELS

    folder = tmp_path / "three"
    folder.mkdir()
    shutil.copy(MODELS / DEFAULT_MODEL / "encoder.onnx", folder / "model.onnx")
    shutil.copy(MODELS / DEFAULT_MODEL / "tokenizer.json", folder)
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "id2label": {"0": "a", "1": "b", "2": "c"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "refusal_guard.json").write_text('{"inputs": "response", "num_labels": 3, "refusal_labels": ["c"]}')
    done = run("quantize", folder)
    assert done.returncode == 0, done.stderr
    assert f"int8:{folder}" in done.stdout
    assert "int8 graph" in run("verify", folder, "--onnx").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fly"], "fly"),
        (["info", "oracle"], "unknown model 'oracle'"),
        (["verify", "minos"], "models fetch minos"),
        (["quantize", "minos"], "models fetch minos"),
        (["quantize", "embedded"], "unknown model"),
        (["fetch", "minos", "--onnx", "--weights"], "not allowed with"),
    ],
)
def test_usage_and_missing_models_exit_with_two_and_say_what_to_do(run, arguments, says):
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
