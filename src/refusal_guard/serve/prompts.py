"""The prompts of calls that are still to be answered, for hosts that send prompt and response apart."""

from __future__ import annotations

from collections import OrderedDict

from ..text import clip

_MOST_PROMPTS = 2_048


class RecentPrompts:
    """Remembers the latest 2,048 prompts by call, each at most as long as the embedded model reads; in memory and nowhere else."""

    def __init__(self) -> None:
        self._prompts: OrderedDict[str, str] = OrderedDict()

    def remember(self, call: str, prompt: str) -> None:
        """Keep a call's prompt; the oldest is forgotten when there are too many."""
        self._prompts[call] = clip(prompt)[0]
        self._prompts.move_to_end(call)
        if len(self._prompts) > _MOST_PROMPTS:
            self._prompts.popitem(last=False)

    def of(self, call: str | None) -> str | None:
        """Return a call's prompt, None when it is not known; a streamed response asks for it many times."""
        return self._prompts.get(call) if call else None
