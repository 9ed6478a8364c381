"""Tiny checkpoints, trained once a session, in a hub cache under the published names; everything offline and in one thread."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

# Before huggingface_hub is imported: nothing here may ask the network.
pytest.MonkeyPatch().setenv("HF_HUB_OFFLINE", "1")

torch = pytest.importorskip("torch", reason="needs torch: nox -s encoders")
pytest.importorskip("transformers", reason="needs transformers: nox -s encoders")
pytest.importorskip("onnxscript", reason="needs onnxscript: nox -s encoders")

import checkpoints  # noqa: E402

from refusal_guard.detectors.hub import ModelFiles, find  # noqa: E402
from refusal_guard.detectors.quantize import export  # noqa: E402
from refusal_guard.detectors.spec import PRESETS  # noqa: E402


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.encoders)


@dataclass(frozen=True)
class Folders:
    """One checkpoint folder each; tests copy before they change."""

    minos: Path
    minos_special: Path
    protectai: Path


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folders(tmp_path_factory, one_thread):
    root = tmp_path_factory.mktemp("checkpoints")
    found = Folders(
        checkpoints.tiny_minos(root / "minos"),
        checkpoints.tiny_minos(root / "minos_special", special_tags=True),
        checkpoints.tiny_protectai(root / "protectai"),
    )
    for name in ("minos", "protectai"):
        folder = getattr(found, name)
        (folder / "onnx").mkdir()
        export(ModelFiles(PRESETS[name], folder), folder / "onnx" / "model.onnx")
    return found


@pytest.fixture(scope="session")
def cache(folders, tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    checkpoints.put_into_cache(folders.minos, root, "NousResearch/Minos-v1", checkpoints.MINOS_COMMIT)
    checkpoints.put_into_cache(folders.protectai, root, "protectai/distilroberta-base-rejection-v1", checkpoints.PROTECTAI_COMMIT)
    return root


@pytest.fixture
def copied(folders, tmp_path):
    """A function that copies a checkpoint's folder, to be changed."""
    return lambda name: Path(shutil.copytree(getattr(folders, name), tmp_path / name))


@pytest.fixture
def files(cache):
    return {name: find(PRESETS[name], cache) for name in ("minos", "protectai")}
