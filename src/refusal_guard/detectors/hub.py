"""A model's files: where they lie, whether they are what was published, and what to do when they are not there.

Detectors read folders and the Hugging Face cache and never the network; `fetch` alone downloads.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..errors import MissingExtraError, ModelError
from .spec import PRESETS, SPEC_FILE, EncoderSpec

CONFIG, TOKENIZER, WEIGHTS, WEIGHTS_INDEX = "config.json", "tokenizer.json", "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_USUAL_GRAPHS = ("onnx/model.onnx", "model.onnx")
_SHA256 = re.compile("[0-9a-f]{64}")
_GIT_SHA1 = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A checkpoint on this machine. `revision` is the commit it was published under, None for a folder of one's own."""

    spec: EncoderSpec
    folder: Path
    revision: str | None = None

    def __getitem__(self, name: str) -> Path:
        """Return the path of a file that has to be there; raises ModelError when it is not."""
        path = self.folder / name
        if path.is_file():
            return path
        raise self.error(f"{name} is missing in {self.folder}. {how_to_get(self.spec)}")

    @property
    def weights(self) -> list[Path]:
        """The safetensors files. Raises ModelError when there are none, and says so when pickles lie in their place."""
        if (self.folder / WEIGHTS_INDEX).is_file():
            return sorted(self.folder.glob("model-*.safetensors"))
        if not (self.folder / WEIGHTS).is_file() and any((self.folder / name).is_file() for name in _PICKLES):
            raise self.error(f"{self.folder} holds its weights as a pickle (.bin) only, which can run code and is never loaded. {_CONVERT}")
        return [self[WEIGHTS]]

    @property
    def graph(self) -> Path:
        """The ONNX graph. Raises ModelError when there is none."""
        usual = next((name for name in _USUAL_GRAPHS if (self.folder / name).is_file()), None)
        if self.spec.onnx_file or usual:
            return self[self.spec.onnx_file or str(usual)]
        raise self.error(
            "no ONNX graph is published with it. Make one (refusal-guard models quantize) and name it int8:..., or take transformers:..."
        )

    def error(self, what: str) -> ModelError:
        """Return the error that says what is wrong with these files."""
        return model_error(self.spec, what, self.folder)


_CONVERT = "Load it once where you trust it and save it again with save_pretrained(..., safe_serialization=True)"


def model_error(spec: EncoderSpec, what: str, path: Path) -> ModelError:
    """Return the error that names the model and what is wrong with it."""
    return ModelError(f"model {spec.name} ({spec.repo}) can't be used: {what}", detector=spec.name, path=path)


def find(spec: EncoderSpec, cache: Path | None = None) -> ModelFiles:
    """Return where a model lies, without the network.

    `cache` is a Hugging Face cache folder, by default the one of HF_HUB_CACHE or HF_HOME. Raises ModelError, which says how to get
    what is missing.
    """
    if spec.folder is not None:
        return ModelFiles(spec, spec.folder)
    root = cache or default_cache(spec)
    snapshot = _snapshot(spec, root)
    if snapshot is None:
        raise model_error(spec, f"{_why_missing(spec, root)}. {how_to_get(spec, root)}", root / _cache_name(spec.repo))
    return ModelFiles(spec, snapshot, snapshot.name)


def default_cache(spec: EncoderSpec) -> Path:
    """Return the machine's Hugging Face cache folder."""
    if find_spec("huggingface_hub") is None:
        raise MissingExtraError(f"The model {spec.name}", "onnx")
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def _cache_name(repo: str) -> str:
    return "models--" + repo.replace("/", "--")


def _snapshot(spec: EncoderSpec, root: Path) -> Path | None:
    """Return the snapshot folder of a revision, in the layout that huggingface_hub documents (guides/manage-cache)."""
    repo = root / _cache_name(spec.repo)
    reference = repo / "refs" / spec.revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else spec.revision
    folder = repo / "snapshots" / commit
    return folder if commit and (folder / CONFIG).is_file() else None


def _why_missing(spec: EncoderSpec, root: Path) -> str:
    name = _cache_name(spec.repo)
    spelled = next((p.name for p in root.glob("models--*") if p.name.lower() == name.lower() and p.name != name), None)
    cached = sorted(path.name for path in (root / name / "snapshots").glob("*"))
    if cached:
        return f"revision {spec.revision} is not in {root / name}, which holds {', '.join(cached)} (name one of them as the revision)"
    if spelled:
        return f"{root} holds it under another spelling, {spelled}; names on the hub are case-sensitive, so rename that folder to {name}"
    if "/" in spec.repo and len(Path(spec.repo).parts) == 2 and not spec.repo.startswith((".", "/", "~")):
        return f"it is not in the cache {root}"
    return "there is no such folder, and it is no repository on the hub either (owner/name)"


def how_to_get(spec: EncoderSpec, root: Path | None = None) -> str:
    """Say how the files of a model come here, with network and without."""
    if spec.folder is not None:
        return f"A checkpoint folder holds {CONFIG}, {TOKENIZER} and {WEIGHTS} or an ONNX graph, and {SPEC_FILE}"
    command = f"refusal-guard models fetch {spec.name}" if PRESETS.get(spec.name) else f"hf download {spec.repo} --revision {spec.revision}"
    size = f" ({spec.size_mb:,} MB)" if spec.size_mb else ""
    copy = f"{_cache_name(spec.repo)}{size} from the cache there ($HF_HOME/hub, by default ~/.cache/huggingface/hub)"
    return (
        f"Get it with: {command}. Without network, run that on another machine and copy the folder {copy} to {root or default_cache(spec)}"
    )


def verify(files: ModelFiles, paths: Sequence[Path]) -> list[tuple[str, bool]]:
    """Compare files with their recorded hashes; returns each file's name and whether a hash was recorded.

    Recorded are the spec's `sha256`, and in the hub's cache the hub's own: a blob is named by the SHA-256 of a large file or by the
    git SHA-1 of a small one. Raises ModelError for a file that is another one.
    """
    found = []
    for path in paths:
        name = path.relative_to(files.folder).as_posix()
        expected = files.spec.sha256.get(name) or (path.resolve().name if path.is_symlink() else "")
        if (_SHA256.fullmatch(expected) or _GIT_SHA1.fullmatch(expected)) and digest(path, git=len(expected) == 40) != expected:
            raise files.error(
                f"{name} is not the file that was published (its hash is another). Delete {path.resolve()}. {how_to_get(files.spec)}"
            )
        found.append((name, bool(_SHA256.fullmatch(expected) or _GIT_SHA1.fullmatch(expected))))
    return found


def digest(path: Path, *, git: bool = False) -> str:
    """Return a file's SHA-256, or the SHA-1 by which git names it."""
    found = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False) if git else hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def fetch(spec: EncoderSpec, *, graph: bool, cache: Path | None = None) -> ModelFiles:
    """Download a model into the cache, or what is still missing of it, and verify it; progress goes to standard error.

    `graph` takes the ONNX graph in place of the safetensors weights. Raises ModelError when that fails, or is not published.
    """
    root = cache or default_cache(spec)
    from huggingface_hub import HfApi, snapshot_download

    with _hub_errors(spec, root):
        names = HfApi().list_repo_files(spec.repo, revision=spec.revision)
    wanted = list(_wanted(spec, names, graph=graph))
    with _hub_errors(spec, root):
        folder = Path(snapshot_download(spec.repo, revision=spec.revision, allow_patterns=wanted, cache_dir=root))
    files = ModelFiles(spec, folder, folder.name)
    verify(files, [files[name] for name in wanted])
    return files


@contextmanager
def _hub_errors(spec: EncoderSpec, root: Path) -> Iterator[None]:
    """Turn what huggingface_hub raises into a ModelError that says what to do."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except GatedRepoError:
        raise model_error(spec, "its licence has to be accepted on the hub first, and HF_TOKEN set", root) from None
    except RevisionNotFoundError:
        raise model_error(spec, f"the hub has no revision {spec.revision} of it", root) from None
    except RepositoryNotFoundError:
        raise model_error(spec, "the hub has no such repository, or it is private and HF_TOKEN is not set", root) from None
    except Exception as error:  # connection errors are those of whichever HTTP library huggingface_hub uses
        what = f"the hub did not answer ({type(error).__name__}); what was downloaded is kept. {how_to_get(spec, root)}"
        raise model_error(spec, what, root) from error


def _wanted(spec: EncoderSpec, names: Sequence[str], *, graph: bool) -> Iterator[str]:
    """Yield which of a repository's files a detector reads."""
    if graph:
        weights = [name for name in names if spec.onnx_file and name.startswith(spec.onnx_file)]
    else:
        weights = [name for name in names if re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?", name)]
    if not weights:
        kind = "ONNX graph" if graph else "safetensors weights"
        pickled = f" (only a pickle, which is never loaded). {_CONVERT}" if set(_PICKLES) & set(names) else ""
        raise model_error(spec, f"revision {spec.revision} holds no {kind}{pickled}", Path(spec.repo))
    yield from weights
    for name in (CONFIG, TOKENIZER):
        if name not in names:
            raise model_error(spec, f"revision {spec.revision} holds no {name}", Path(spec.repo))
        yield name
