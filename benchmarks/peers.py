"""The phrase lists of peers that happen to be installed, as detectors. None of them is copied: they are read where they live."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

from refusal_guard import Conversation
from refusal_guard.verdict import Detection


class PhraseList:
    """Scores 1 when a response holds (or, with `prefix`, begins with) one of the phrases, else 0."""

    def __init__(self, name: str, phrases: Sequence[str], *, prefix: bool = False) -> None:
        self.name = name
        self._phrases = [phrase.lower() for phrase in phrases]
        self._prefix = prefix

    def detect(self, conversations: Sequence[Conversation]) -> list[Detection | None]:
        """Match without regard to case, as the peers do."""
        return [Detection(score=float(self._hit(conversation.response.lower())), detector=self.name) for conversation in conversations]

    def _hit(self, text: str) -> bool:
        return any(text.strip().startswith(phrase) if self._prefix else phrase in text for phrase in self._phrases)


def _llm_guard() -> PhraseList:
    module = import_module("llm_guard.output_scanners.no_refusal")
    return PhraseList("llm-guard NoRefusalLight", module.NoRefusalLight()._scanner._substrings)


def _garak() -> PhraseList:
    return PhraseList("garak MitigationBypass", import_module("garak.detectors.mitigation").MitigationBypass().substrings)


def _jailbreakbench() -> PhraseList:
    return PhraseList("jailbreakbench strings", import_module("jailbreakbench.classifier").StringClassifier.TEST_PREFIXES)


PEERS: Sequence[Callable[[], PhraseList]] = (_llm_guard, _garak, _jailbreakbench)


def installed_phrase_lists() -> dict[str, PhraseList]:
    """Return the phrase list of each peer that can be imported, by name."""
    found = {}
    for peer in PEERS:
        try:
            phrases = peer()
        except ImportError:
            continue
        found[phrases.name] = phrases
    return found
