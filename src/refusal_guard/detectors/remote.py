"""Published classifiers behind a server: text-embeddings-inference (TEI), vLLM and SGLang.

The model's spec says how it is asked and what its labels mean, as for the local backends.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ..conversation import Conversation
from ..errors import EndpointError, InputError
from ..verdict import Detection, Label
from .http import Backoff, Call, Endpoint, EndpointDetector
from .inputs import Input, input_of
from .judge import FORMATS, JudgeDetector
from .servers import SERVERS, Classes, Probabilities, ServerName, WrongLabels
from .spec import PRESETS, EncoderSpec, spec_of

API_KEY_VARIABLE = "REFUSAL_GUARD_API_KEY"
_NOT_FOUND = 404


class RemoteDetector(EndpointDetector):
    """Asks a classifier that a server holds.

    `model` is a preset's name ("minos", "protectai"...), a folder with a refusal_guard.json, or an EncoderSpec. `server` says what runs at
    `url`: "tei" (text-embeddings-inference, `/predict`), "vllm" (`/classify`) or "sglang" (`/v1/classify`). `served_as` is the name under
    which vLLM or SGLang have the model, if it is not its repository. `batch_size` is how many texts a request holds; TEI takes 32 unless
    its --max-client-batch-size says otherwise. The other arguments are those of `Endpoint`.

    The spec's budget of tokens (`max_tokens`) is kept by an estimate. Of its window policies only "head" differs here: the others send the
    head and the tail of a long response as one text.

    Raises InputError for settings that are none, and EndpointError when the server fails or answers with other labels, another number of
    answers or another shape. One detector serves many threads and event loops.
    """

    def __init__(
        self,
        url: str,
        model: EncoderSpec | str | Path,
        server: ServerName,
        *,
        served_as: str | None = None,
        batch_size: int = 32,
        api_key: str | None = None,
        timeout: float = 30.0,
        concurrency: int = 8,
        backoff: Backoff = Backoff(),
    ) -> None:
        if server not in SERVERS:
            raise InputError(f"server must be one of {', '.join(SERVERS)}")
        if batch_size < 1:
            raise InputError("batch_size must be at least 1")
        self.spec = spec_of(model)
        self.name = f"{server}:{self.spec.name}"
        self.threshold = self.spec.threshold
        self.batch_size = batch_size
        self._server = SERVERS[server]
        self._served_as = served_as or self.spec.repo
        self._classes = Classes.of(self.spec, in_order=self._server.in_order)
        self.endpoint = Endpoint(url, detector=self.name, api_key=api_key, timeout=timeout, concurrency=concurrency, backoff=backoff)

    def detect(self, conversations: Sequence[Conversation]) -> list[Detection | None]:
        """Return what the model says of each conversation, in order; None where there is no text to judge."""
        inputs, batches = self._prepared(conversations)
        return self._read(inputs, batches, self.endpoint.send([self._call(batch) for batch in batches]))

    async def adetect(self, conversations: Sequence[Conversation]) -> list[Detection | None]:
        """Do what `detect` does, awaiting."""
        inputs, batches = self._prepared(conversations)
        return self._read(inputs, batches, await self.endpoint.asend([self._call(batch) for batch in batches]))

    def _prepared(self, conversations: Sequence[Conversation]) -> tuple[list[Input | None], list[list[str]]]:
        inputs = [input_of(conversation, self.spec) for conversation in conversations]
        texts = [asked.text for asked in inputs if asked]
        return inputs, [texts[i : i + self.batch_size] for i in range(0, len(texts), self.batch_size)]

    def _call(self, texts: Sequence[str]) -> Call:
        return Call(self._server.path, self._server.body(texts, self._served_as))

    def _read(self, inputs: Sequence[Input | None], batches: Sequence[Sequence[str]], answers: Sequence[Any]) -> list[Detection | None]:
        found = iter([row for batch, answer in zip(batches, answers, strict=True) for row in self._rows(answer, len(batch))])
        return [asked and self._detection(next(found), asked) for asked in inputs]

    def _rows(self, answer: Any, count: int) -> list[Probabilities]:
        """Return a batch's probabilities by label. The errors say nothing of the answer itself, which might quote the text."""
        wrong = f"the answer is not what {self._server.path} returns: does another kind of server run there?"
        try:
            rows = self._server.rows(answer, self._classes)
        except WrongLabels:
            wrong = f"the labels are not {self._classes}: does it serve {self.spec.repo}? Else pass the spec of its model"
        except (TypeError, ValueError, LookupError, AttributeError):
            pass
        else:
            if len(rows) == count:
                return rows
            wrong = f"{len(rows)} answers came back for {count} texts: does another kind of server run there?"
        raise self.endpoint.error(wrong, 200)

    def _detection(self, probabilities: Probabilities, asked: Input) -> Detection:
        """Return the spec's reading of probabilities. Dividing logits by a temperature takes probabilities to its inverse power."""
        weights = {label: p ** (1 / self.spec.temperature) for label, p in probabilities.items()}
        refusal, partial = (math.fsum(weights[label] for label in labels) for labels in (self._classes.refusal, self._classes.partial))
        reason = max(self._classes.reasons, key=weights.__getitem__, default=None)
        return Detection(
            score=min(1.0, (refusal + partial) / math.fsum(weights.values())),
            detector=self.name,
            label=Label.PARTIAL if partial > refusal else Label.REFUSAL,
            reason=self._classes.reasons[reason] if reason else None,
            truncated=asked.truncated,
        )


def connect(url: str) -> RemoteDetector | JudgeDetector:
    """Return the detector for what a server says it is and serves.

    TEI is asked at `/info`, vLLM and SGLang at `/v1/models`; the model is known by its repository's name. Where it goes by another name,
    the URL says which it is ("http://host:8080#minos", "http://host:8000#qwen3guard"). The API key is taken from the environment variable
    REFUSAL_GUARD_API_KEY. Raises EndpointError when the server does not answer, or serves no known model.
    """
    address, _, named = url.partition("#")
    api_key = os.environ.get(API_KEY_VARIABLE) or None
    with closing(Endpoint(address, detector="remote", api_key=api_key)) as endpoint:
        info = _told(endpoint, "/info")
        if info is not None:
            return _tei(endpoint, info, named, api_key)
        return _openai_like(endpoint, _told(endpoint, "/v1/models"), named, api_key)


def _told(endpoint: Endpoint, path: str) -> Any:
    """Return what the server says at a path; None when it knows no such path."""
    try:
        return endpoint.send([Call(path)])[0]
    except EndpointError as error:
        if error.status != _NOT_FOUND:
            raise
        return None


def _tei(endpoint: Endpoint, info: Any, named: str, api_key: str | None) -> RemoteDetector:
    try:
        served, kinds = str(info["model_id"]), info["model_type"]
        longest, batch = int(info["max_input_length"]), int(info["max_client_batch_size"])
    except (TypeError, ValueError, LookupError):
        raise endpoint.error("/info is not text-embeddings-inference's: name server and model (RemoteDetector)", 200) from None
    if "classifier" not in kinds:
        raise endpoint.error("it serves no classifier: start it with a sequence classification model", 200)
    spec = _preset(endpoint, named, served)
    fitting = spec.changed(max_tokens=max(16, min(spec.max_tokens, longest)))
    return RemoteDetector(endpoint.url, fitting, "tei", batch_size=max(1, batch), api_key=api_key)


def _openai_like(endpoint: Endpoint, listed: Any, named: str, api_key: str | None) -> RemoteDetector | JudgeDetector:
    try:
        model = listed["data"][0]
        served, root, owner = str(model["id"]), str(model.get("root") or model["id"]), model.get("owned_by")
    except (TypeError, LookupError, AttributeError):
        raise endpoint.error("neither /info nor /v1/models says what it serves: name server and model (RemoteDetector)") from None
    judge = named or next((judge.name for judge in FORMATS.values() if judge.family.lower() in root.lower()), "")
    if judge in FORMATS:
        return JudgeDetector(endpoint.url, judge, model=served, api_key=api_key)
    if owner not in SERVERS:
        raise endpoint.error("it is neither TEI, vLLM nor SGLang: name server and model (RemoteDetector)", 200)
    return RemoteDetector(endpoint.url, _preset(endpoint, named, root), owner, served_as=served, api_key=api_key)


def _preset(endpoint: Endpoint, named: str, repo: str) -> EncoderSpec:
    if named:
        return spec_of(named)
    found = next((spec for spec in PRESETS.values() if spec.repo.lower() == repo.lower()), None)
    if found is None:
        known = ", ".join([*PRESETS, *FORMATS])
        raise endpoint.error(
            f"no known model goes by the name it serves: say which it is behind a # in the URL ({known}), or pass a spec", 200
        )
    return found
