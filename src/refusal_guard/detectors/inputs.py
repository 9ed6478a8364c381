"""From a conversation to the text that a server's model is asked with: template, and a budget of estimated tokens.

A server tokenises on its own, and would cut what is too long from the right, where the response stands. So texts are cut here first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..conversation import Conversation, Message
from ..text import inert
from ..verdict import Part
from .spec import EncoderSpec, Role, Template
from .windows import HEAD_SHARE, NO_TAGS, exchanges, system_words

# On the side of cutting too much: English has about four characters a token; other scripts take up to two tokens a character
# in vocabularies made for English.
_CHARACTERS_PER_TOKEN = 3.0
_TOKENS_PER_WIDE_CHARACTER = 2.0
_SPECIAL_TOKENS = 4
_PROMPT_SHARE = 0.25
_Turn = tuple[Role, str]


class Input(NamedTuple):
    """The text to send, and what of the conversation had to be cut."""

    text: str
    truncated: tuple[Part, ...]


def input_of(conversation: Conversation, spec: EncoderSpec) -> Input | None:
    """Return the text by which a model is asked about a conversation, about `spec.max_tokens` long; None when there is nothing to judge.

    Cut are, in this order, earlier turns, the middle of a prompt that takes more than a quarter of the budget, and the response behind
    its head, of which the tail stays ("head": not even that). However long it is, a response is one text: other window policies need a
    local backend.
    """
    response = inert(conversation.visible_response.strip())
    if not response:
        return None
    template = spec.template or NO_TAGS
    before, cut = _before(conversation, spec, estimated_tokens(response)) if spec.inputs == "pair" else ([], [])
    asked = _written([*before, ("assistant", "")], template)
    room = spec.max_tokens - _SPECIAL_TOKENS - estimated_tokens(asked)
    answer = _shortened(response, room, 1.0 if spec.windows == "head" else HEAD_SHARE, template.ellipsis)
    return Input(asked + answer, (*cut, *_named("response", answer != response)))


def estimated_tokens(text: str) -> float:
    """Return about how many tokens a text has, rather too many than too few."""
    wide = len(text) - len(text.encode("ascii", "ignore"))
    return (len(text) - wide) / _CHARACTERS_PER_TOKEN + wide * _TOKENS_PER_WIDE_CHARACTER


def _before(conversation: Conversation, spec: EncoderSpec, response: float) -> tuple[list[_Turn], list[Part]]:
    """Return the turns before a response of so many tokens, and what of them had to be cut."""
    template = spec.template or NO_TAGS
    room = spec.max_tokens - _SPECIAL_TOKENS - estimated_tokens(_written([("user", ""), ("assistant", "")], template))
    whole = inert(conversation.prompt.strip())
    prompt = _shortened(whole, max(room * _PROMPT_SHARE, room - response), 0.5, template.ellipsis)
    earlier, complete = _earlier(conversation.history, spec, room - response - estimated_tokens(prompt))
    return [*earlier, ("user", prompt)], [*_named("turns", not complete), *_named("prompt", prompt != whole)]


def _earlier(history: Sequence[Message], spec: EncoderSpec, room: float) -> tuple[list[_Turn], bool]:
    """Return the system's words and as many of the wanted exchanges as there is room for, newest first, and whether it is all of them."""
    template = spec.template or NO_TAGS
    system = inert(system_words(history).strip()) if "system" in template.openings else ""
    first: list[_Turn] = [("system", system)] if system and estimated_tokens(system) <= room else []
    room -= estimated_tokens(_written(first, template))
    kept: list[_Turn] = []
    for user, assistant in reversed(exchanges(history, spec.context_turns)):
        exchange: list[_Turn] = [("user", inert(user.strip())), ("assistant", inert(assistant.strip()))]
        room -= estimated_tokens(_written(exchange, template) + template.join)
        if room < 0:
            return [*first, *kept], False
        kept = [*exchange, *kept]
    return [*first, *kept], bool(first) or not system


def _written(turns: Sequence[_Turn], template: Template) -> str:
    return template.join.join(template.openings[role] + text for role, text in turns)


def _shortened(text: str, tokens: float, head: float, ellipsis: str) -> str:
    """Return the text, or its head (a share of what is kept) and its tail when it has more than so many tokens."""
    estimate = estimated_tokens(text)
    if estimate <= tokens:
        return text
    kept = int(len(text) * max(tokens - estimated_tokens(ellipsis), 1.0) / estimate)
    start = round(kept * head)
    return text[:start] + ellipsis + text[len(text) - kept + start :]


def _named(part: Part, cut: bool) -> list[Part]:
    return [part] if cut else []
