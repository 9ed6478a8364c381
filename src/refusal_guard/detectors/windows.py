"""From a conversation to the token ids that an encoder reads: template, budget and windows.

The template's tags and the contents are tokenised apart and their ids are joined. Contents can thus forge no tag and no special
token, and are cut by tokens without tokenising again; with contents stripped, as here, the ids equal those of the whole text.
Only the `tokenizers` library is used, for every backend, so two backends always read the same ids.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from ..conversation import Conversation, Message, visible
from ..errors import InputError
from ..verdict import Part, Span
from .spec import ContextTurns, EncoderSpec, Role, Template

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# A token is rarely longer than this many characters, so of a text that is cut nothing beyond this reach is read.
_CHARACTERS_PER_TOKEN = 16
_PROMPT_FLOOR = 256
_LEAST_ROOM = 8
HEAD_SHARE = 0.75
_OVERLAP = 8  # neighbouring windows share an eighth
NO_TAGS = Template(openings={"user": "", "assistant": ""})
_SURROGATES = re.compile("[\ud800-\udfff]")
_BLANKS = re.compile(" {4,}")
_WRAPPING = re.compile(r"^\W+|\W+$")


@dataclass(frozen=True, slots=True)
class Window:
    """Token ids read at once, specials included, and the part of the response among them."""

    ids: list[int]
    span: Span


@dataclass(frozen=True, slots=True)
class Reading:
    """All windows of one conversation, in the response's order, and what of it is in none of them."""

    windows: list[Window]
    truncated: tuple[Part, ...] = ()


class _Tokens(NamedTuple):
    """Token ids of a text and where each stands in it; `gap` is the index before which the middle of the text was left out."""

    ids: list[int]
    spans: list[tuple[int, int]]
    gap: int | None = None

    def head(self, count: int) -> slice:
        return slice(0, count if self.gap is None else min(count, self.gap))

    def tail(self, count: int) -> slice:
        return slice(max(0, len(self.ids) - count, self.gap or 0), len(self.ids))

    def fits(self, room: int) -> bool:
        return self.gap is None and len(self.ids) <= room


class _Turn(NamedTuple):
    """A turn's role and the token ids of its content."""

    role: Role
    ids: list[int]


@dataclass(frozen=True, slots=True)
class _Visible:
    """A response without its reasoning, and where the pieces that are left stood."""

    text: str
    starts: list[int]
    origins: list[int]

    def span(self, start: int, end: int) -> Span:
        return Span(self._origin(start), self._origin(end - 1) + 1)

    def _origin(self, position: int) -> int:
        piece = bisect_right(self.starts, position) - 1
        return self.origins[piece] + position - self.starts[piece]


class WindowReader:
    """Turns conversations into windows for one spec and its tokenizer. Read-only after construction, so threads share it.

    `max_tokens` is how much is read at once. Raises InputError when that is too little for the template.
    """

    def __init__(self, tokenizer: Tokenizer, spec: EncoderSpec, max_tokens: int) -> None:
        # What a tokenizer.json was saved with must not cut or fill up what is read here.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer, self._spec = tokenizer, spec
        self._template = spec.template or NO_TAGS
        self._before, self._after = _specials(tokenizer)
        self._first = {role: self._tag(opening) for role, opening in self._template.openings.items()}
        self._next = {role: self._tag(self._template.join + opening) for role, opening in self._template.openings.items()}
        self._ellipsis = self._tag(self._template.ellipsis)
        self._marks = _marks(self._template)
        tokenizer.encode_special_tokens = True  # from here on, a content's "</s>" or "[SEP]" is text
        self._space = max_tokens - len(self._before) - len(self._after)
        if self._free < _LEAST_ROOM + 4 * len(self._ellipsis):
            raise InputError(f"detector {spec.name}: max_tokens {max_tokens} leaves no room for a response: take a greater one")

    @cached_property
    def tags_are_special(self) -> bool:
        """Whether the template's tags are tokens of their own in this tokenizer, rather than ordinary text."""
        added = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        return all(opening.strip() in added for opening in self._template.openings.values())

    def read(self, conversation: Conversation) -> Reading:
        """Return the windows of a conversation; none when its response holds nothing to read."""
        answer = _without_reasoning(conversation)
        response = self._content(answer.text, None if self._spec.windows == "all" else self._free)
        if not response.ids:
            return Reading([])
        turns, cut = self._turns(conversation, len(response.ids)) if self._paired else ([], [])
        before = [*self._before, *self._opened(turns)]
        room = self._space + len(self._before) - len(before)
        parts = [held for part in self._parts(response, room) if (held := [piece for piece in part if piece.start < piece.stop])]
        if not (response.fits(room) or _cover(parts, response)):
            cut.append("response")
        return Reading([self._window(before, part, response, answer) for part in parts], tuple(cut))

    @property
    def _paired(self) -> bool:
        return self._spec.inputs == "pair"

    @property
    def _free(self) -> int:
        """Tokens left for contents when nothing but the last exchange is read."""
        return self._space - (len(self._first["user"]) + len(self._next["assistant"]) if self._paired else 0)

    def _turns(self, conversation: Conversation, response: int) -> tuple[list[_Turn], list[Part]]:
        """Return the turns before a response of so many tokens, and what had to be cut: oldest turns first, then the prompt's middle."""
        room = max(min(_PROMPT_FLOOR, self._free // 4), self._free - response)
        prompt = self._content(conversation.prompt, room)
        cut: list[Part] = [] if prompt.fits(room) else ["prompt"]
        request = _Turn("user", prompt.ids if prompt.fits(room) else self._shrunk(prompt, room))
        earlier, whole = self._earlier(conversation.history, self._free - response - len(request.ids))
        return [*earlier, request], cut if whole else ["turns", *cut]

    def _earlier(self, history: Sequence[Message], room: int) -> tuple[list[_Turn], bool]:
        """Return the system's words and the wanted earlier exchanges, newest first as far as there is room, and whether that is all."""
        wanted = exchanges(history, self._spec.context_turns)
        system = self._fitting([("system", system_words(history))] if "system" in self._next else [], room)
        kept: list[_Turn] = []
        whole = system is not None
        room -= sum(map(self._cost, system or []))
        for user, assistant in reversed(wanted):
            exchange = self._fitting([("user", user), ("assistant", assistant)], room)
            if exchange is None:
                whole = False
                break
            kept = exchange + kept
            room -= sum(map(self._cost, exchange))
        return [*(system or []), *kept], whole

    def _fitting(self, texts: Sequence[tuple[Role, str]], room: int) -> list[_Turn] | None:
        """Return the turns of the texts that are not empty, or None when they take more tokens than there is room for."""
        turns = []
        for role, text in texts:
            if not text.strip():
                continue
            content = self._content(text, max(room, 1))
            turns.append(_Turn(role, content.ids))
            room -= self._cost(turns[-1])
            if room < 0 or content.gap is not None:
                return None
        return turns

    def _cost(self, turn: _Turn) -> int:
        return len(self._next[turn.role]) + len(turn.ids)

    def _opened(self, turns: Sequence[_Turn]) -> list[int]:
        """Join turns and tags, up to the tag behind which the response goes."""
        ids: list[int] = []
        for turn in turns:
            ids += (self._next if ids else self._first)[turn.role] + turn.ids
        return ids + self._next["assistant"] if turns else ids

    def _parts(self, response: _Tokens, room: int) -> list[list[slice]]:
        """Return for each window the slices of the response's tokens that it holds; two where its middle is left out."""
        if response.fits(room):
            return [[slice(0, len(response.ids))]]
        match self._spec.windows:
            case "head":
                return [[response.head(room)]]
            case "head_tail":
                return [[response.head(room)], [response.tail(room)]]
            case "all":
                last = len(response.ids) - room
                return [[slice(at, at + room)] for at in [*range(0, last, room - room // _OVERLAP), last]]
        kept = room - len(self._ellipsis)
        tail = kept - math.ceil(kept * HEAD_SHARE)
        return [[response.head(kept - tail), response.tail(tail)] if tail else [response.head(room)]]

    def _window(self, before: list[int], part: Sequence[slice], response: _Tokens, answer: _Visible) -> Window:
        ids = self._joined(response, part)
        start, end = response.spans[part[0].start][0], response.spans[part[-1].stop - 1][1]
        return Window([*before, *ids, *self._after], answer.span(start, end))

    def _shrunk(self, tokens: _Tokens, room: int) -> list[int]:
        """Return both ends of a text that does not fit, in so many tokens."""
        kept = max(1, room - len(self._ellipsis))
        return self._joined(tokens, [tokens.head(kept - kept // 2), tokens.tail(kept // 2)])

    def _joined(self, tokens: _Tokens, part: Sequence[slice]) -> list[int]:
        ids = list(tokens.ids[part[0]])
        for further in part[1:]:
            ids += self._ellipsis + tokens.ids[further]
        return ids

    def _content(self, text: str, room: int | None) -> _Tokens:
        """Tokenise a content: stripped, tags in it made harmless, and only its two ends where it can't fit (`room`, in tokens)."""
        lead = len(text) - len(text.lstrip())
        text = self._harmless(text.strip())
        reach = len(text) if room is None else _CHARACTERS_PER_TOKEN * room
        if len(text) <= 2 * reach:
            return self._encoded(text, lead)
        head, tail = self._encoded(text[:reach], lead), self._encoded(text[-reach:], lead + len(text) - reach)
        return _Tokens(head.ids + tail.ids, head.spans + tail.spans, len(head.ids))

    def _encoded(self, text: str, offset: int) -> _Tokens:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return _Tokens(encoding.ids, [(start + offset, end + offset) for start, end in encoding.offsets])

    def _harmless(self, text: str) -> str:
        """Blank the brackets of the template's tags, and characters that no tokenizer takes; the length stays."""
        for mark, blanked in self._marks:
            text = text.replace(mark, blanked)
        return _SURROGATES.sub("\ufffd", text)

    def _tag(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids) if text else []


def _specials(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer puts before and behind a text, such as [CLS] and [SEP]."""
    encoding = tokenizer.encode("a")
    own = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
    return encoding.ids[: own[0]], encoding.ids[own[-1] + 1 :]


def _marks(template: Template) -> list[tuple[str, str]]:
    """Return each tag of a template with its harmless form: `<|user|>` becomes `  user  `."""
    marks = [*(opening.strip() for opening in template.openings.values()), template.ellipsis.strip()]
    return [(mark, _WRAPPING.sub(lambda match: " " * len(match.group()), mark)) for mark in marks if mark.strip(".…")]


def _without_reasoning(conversation: Conversation) -> _Visible:
    """Leave out what `visible_response` blanks, keeping where each remaining piece stood."""
    shown, written = conversation.visible_response, conversation.response
    if shown == written:
        return _Visible(shown, [0], [0])
    hidden = [m.span() for m in _BLANKS.finditer(shown) if not written[slice(*m.span())].isspace()]
    edges = [0, *(edge for span in hidden for edge in span), len(shown)]
    pieces = [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if shown[start:end].strip()]
    lengths = [end - start + 1 for start, end in pieces]
    starts = [sum(lengths[:i]) for i in range(len(pieces))]
    return _Visible("\n".join(shown[start:end] for start, end in pieces), starts or [0], [start for start, _ in pieces] or [0])


def exchanges(history: Sequence[Message], turns: ContextTurns) -> list[tuple[str, str]]:
    """Pair what the user and the assistant said, oldest first; an exchange that lacks one side's words is left out.

    `turns` are as many as a spec wants (`context_turns`), the one that is judged and not in the history included.
    """
    pairs: list[tuple[list[str], list[str]]] = []
    for message in history:
        if message.role == "user" and (not pairs or pairs[-1][1]):
            pairs.append(([], []))
        if pairs and message.content and message.role in ("user", "assistant"):
            user, assistant = pairs[-1]
            (user if message.role == "user" else assistant).append(message.content)
    texts = [("\n".join(user), visible("\n".join(assistant))) for user, assistant in pairs]
    whole = [(user, assistant) for user, assistant in texts if user.strip() and assistant.strip()]
    return whole if turns == "all" else whole[max(0, len(whole) - turns + 1) :]


def system_words(history: Sequence[Message]) -> str:
    """Return what the system and the developer said, joined by line breaks."""
    return "\n".join(message.content for message in history if message.role in ("system", "developer"))


def _cover(parts: Sequence[Sequence[slice]], tokens: _Tokens) -> bool:
    """Whether the slices of all windows together hold every token."""
    held = sorted((piece.start, piece.stop) for part in parts for piece in part)
    reached = 0
    for start, stop in held:
        if start > reached:
            return False
        reached = max(reached, stop)
    return tokens.gap is None and reached == len(tokens.ids)
