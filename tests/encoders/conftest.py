"""Tiny checkpoints, trained once a session, in a hub cache under the published names; everything offline and in one thread."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from refusal_guard.detectors.hub import ModelFiles, find
from refusal_guard.detectors.spec import PRESETS


@dataclass(frozen=True)
class Folders:
    """One checkpoint folder each, with its ONNX graph; tests copy before they change."""

    minos: Path
    minos_special: Path
    protectai: Path


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    import checkpoints
    import torch

    from refusal_guard.detectors.export import export
    from refusal_guard.detectors.quantize import quiet

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("checkpoints")
    found = Folders(
        checkpoints.tiny_minos(root / "minos"),
        checkpoints.tiny_minos(root / "minos_special", special_tags=True),
        checkpoints.tiny_protectai(root / "protectai"),
    )
    for name in ("minos", "protectai"):
        folder = getattr(found, name)
        (folder / "onnx").mkdir()
        with quiet():
            export(ModelFiles(PRESETS[name], folder), folder / "onnx" / "model.onnx")
    return found


@pytest.fixture(scope="session")
def cache(folders, tmp_path_factory):
    import checkpoints

    root = tmp_path_factory.mktemp("hub")
    checkpoints.put_into_cache(folders.minos, root, "NousResearch/Minos-v1", checkpoints.MINOS_COMMIT)
    checkpoints.put_into_cache(folders.protectai, root, "protectai/distilroberta-base-rejection-v1", checkpoints.PROTECTAI_COMMIT)
    return root


@pytest.fixture
def copied(folders, tmp_path):
    """A function that copies a checkpoint's folder, to be changed."""
    return lambda name: Path(shutil.copytree(getattr(folders, name), tmp_path / name))


@pytest.fixture
def found(cache):
    """A function from a preset's name to its files in the cache."""
    return lambda name: find(PRESETS[name], cache)
