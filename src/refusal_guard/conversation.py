"""Messages and conversations: one form for pairs, chat messages and rows of a data set."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from .errors import InputError

_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant", "ai": "assistant"}
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_REASONING_PARTS = frozenset({"thinking", "redacted_thinking", "reasoning"})
_TOOL_PARTS = frozenset({"tool_use", "tool_call", "function_call", "server_tool_use"})
_MEDIA = {"image": "[image]", "audio": "[audio]", "video": "[video]", "file": "[file]", "document": "[file]"}

# Reasoning that open models write into the text: <think> blocks (also one whose opening tag the chat template swallowed,
# or that never closes) and the analysis channel of the harmony format.
_REASONING = re.compile(
    r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)"
    r"|<\|channel\|>(?:analysis|commentary).*?(?=<\|channel\|>final|\Z)"
    r"|<\|channel\|>final<\|message\|>|<\|(?:return|end)\|>",
    re.DOTALL | re.IGNORECASE,
)
_SWALLOWED_OPENING = re.compile(r"\A(?:(?!<think).)*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)

_PAIRS = (
    ("prompt", "response"),
    ("prompt", "completion"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("input", "output"),
    ("user", "assistant"),
)
_CHATS = ("messages", "conversations", "conversation")


class Message(BaseModel):
    """One message of a chat.

    `content` is its text, "" where there is none. `refusal` is what the provider declared as a refusal (OpenAI's refusal
    field or part). `calls_tool` says that the message asks for a tool.
    """

    model_config = ConfigDict(frozen=True)

    role: str
    content: str = ""
    refusal: str | None = None
    calls_tool: bool = False


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a row hold the prompt, the response or the messages; None: found by themselves."""

    prompt: str | None = None
    response: str | None = None
    messages: str | None = None


class Conversation(BaseModel):
    """What was asked and what was answered; the last assistant message is what gets judged."""

    model_config = ConfigDict(frozen=True)

    messages: tuple[Message, ...]

    @classmethod
    def from_pair(cls, prompt: str | None, response: str | None) -> Self:
        """Make a conversation of one request and its answer; None counts as no text."""
        for name, text in (("prompt", prompt), ("response", response)):
            if text is not None and not isinstance(text, str):
                raise InputError(f"the {name} must be a string or None, not {type(text).__name__}")
        return cls(messages=(Message(role="user", content=prompt or ""), Message(role="assistant", content=response or "")))

    @classmethod
    def from_messages(cls, messages: Sequence[Mapping[str, Any]]) -> Self:
        """Make a conversation of chat messages: OpenAI's and Anthropic's shape (`role`, `content`) or ShareGPT's (`from`, `value`).

        Contents may be strings or lists of parts. Raises InputError when no message is the assistant's.
        """
        if isinstance(messages, str | bytes) or not isinstance(messages, Sequence):
            raise InputError(f"messages must be a list of objects with a role and a content, not {type(messages).__name__}")
        read = tuple(_read_message(message, index) for index, message in enumerate(messages))
        if not any(message.role == "assistant" for message in read):
            raise InputError("there is nothing to judge: no message has the role assistant")
        return cls(messages=read)

    @classmethod
    def from_row(cls, row: Mapping[str, Any], fields: Fields = Fields()) -> Self:
        """Make a conversation of one row of a data set.

        Without `fields` the usual columns are tried: messages or conversations, prompt/response, instruction(+input)/output,
        question/answer and their like. Raises InputError when none fits.
        """
        if not isinstance(row, Mapping):
            raise InputError(f"a row must be an object with named fields, not {type(row).__name__}")
        if fields.messages or not (fields.prompt or fields.response):
            for name in (fields.messages,) if fields.messages else _CHATS:
                if row.get(name) is not None:
                    return cls.from_messages(_with_response(row[name], row, fields))
            if fields.messages:
                raise InputError(f"the row has no field {fields.messages!r}")
        prompt, response = _pair_fields(row, fields)
        return cls._from_fields(row, prompt, response)

    @classmethod
    def _from_fields(cls, row: Mapping[str, Any], prompt: str | None, response: str) -> Self:
        asked: Any = row.get(prompt) if prompt else ""
        if isinstance(asked, Sequence) and not isinstance(asked, str | bytes):
            return cls.from_messages([*asked, {"role": "assistant", "content": row[response]}])
        if prompt == "instruction" and isinstance(row.get("input"), str) and isinstance(asked, str) and row["input"]:
            asked = f"{asked}\n{row['input']}"
        try:
            return cls.from_pair(asked, row[response])
        except InputError as error:
            raise InputError(f"fields {prompt!r} and {response!r}: {error}") from None

    @property
    def prompt(self) -> str:
        """The user's last request before the answer; "" when there is none."""
        first, end = self._request
        return _joined(self.messages[first:end])

    @property
    def history(self) -> tuple[Message, ...]:
        """What was said before the last request."""
        return self.messages[: self._request[0]]

    @property
    def response(self) -> str:
        """The assistant's last message as it was handed over; consecutive ones joined by a line break."""
        return _joined(self.answer)

    @property
    def visible_response(self) -> str:
        """The response with reasoning blanked out by spaces, so that positions in it stay true."""
        return visible(self.response)

    @property
    def answer(self) -> tuple[Message, ...]:
        """The last run of assistant messages: the ones that get judged."""
        first, end = self._answer
        return self.messages[first:end]

    @property
    def _request(self) -> tuple[int, int]:
        """Where the user's last run of messages before the answer stands; empty, right before the answer, when there is none."""
        answer = self._answer[0]
        end = max((i + 1 for i, message in enumerate(self.messages[:answer]) if message.role == "user"), default=answer)
        first = end
        while first and self.messages[first - 1].role == "user":
            first -= 1
        return first, end

    @property
    def _answer(self) -> tuple[int, int]:
        end = max((i + 1 for i, message in enumerate(self.messages) if message.role == "assistant"), default=0)
        first = end
        while first and self.messages[first - 1].role == "assistant":
            first -= 1
        return first, end


def visible(text: str) -> str:
    """Return an assistant's text with its reasoning blanked out by spaces, so that positions in it stay true."""
    if "<" not in text:
        return text
    return _REASONING.sub(_blank, _SWALLOWED_OPENING.sub(_blank, text))


def _joined(messages: Sequence[Message]) -> str:
    return "\n".join(message.content for message in messages if message.content)


def _blank(match: re.Match[str]) -> str:
    return " " * len(match.group())


def _with_response(messages: Any, row: Mapping[str, Any], fields: Fields) -> Any:
    """Append the row's response to messages that end with the user's turn, the shape of an evaluation log."""
    response = row.get(fields.response or "response")
    if not isinstance(response, str) or not isinstance(messages, list) or not messages or not isinstance(messages[-1], Mapping):
        return messages
    role = messages[-1].get("role", messages[-1].get("from"))
    return messages if _ROLES.get(role, role) == "assistant" else [*messages, {"role": "assistant", "content": response}]


def _pair_fields(row: Mapping[str, Any], fields: Fields) -> tuple[str | None, str]:
    """Return the names of the prompt field (None: the row has none) and of the response field."""
    if fields.prompt or fields.response:
        usual = {prompt: response for prompt, response in reversed(_PAIRS)}
        response = fields.response or next(
            (r for p, r in _PAIRS if p == fields.prompt and r in row), usual.get(fields.prompt or "", "response")
        )
        for name in (fields.prompt, response):
            if name and name not in row:
                raise InputError(f"the row has no field {name!r}")
        return fields.prompt or next((p for p, r in _PAIRS if r == response and p in row), None), response
    for prompt, response in _PAIRS:
        if prompt in row and response in row:
            return prompt, response
    if "response" in row:
        return None, "response"
    raise InputError("no known fields: name them (--prompt-field, --response-field or --messages-field)")


def _read_message(raw: Any, index: int) -> Message:
    if isinstance(raw, Message):
        return raw
    if not isinstance(raw, Mapping):
        raise InputError(f"message {index} must be an object with a role and a content, not {type(raw).__name__}")
    role = raw.get("role", raw.get("from"))
    if not isinstance(role, str):
        raise InputError(f"message {index} has no role")
    content = raw["content"] if "content" in raw else raw.get("value")
    text, refusal, calls_tool = _read_content(content, index)
    declared = raw.get("refusal")
    return Message(
        role=_ROLES.get(role.lower(), role.lower()),
        content=text,
        refusal=declared if isinstance(declared, str) and declared else refusal,
        calls_tool=calls_tool or bool(raw.get("tool_calls") or raw.get("function_call")),
    )


def _read_content(content: Any, index: int) -> tuple[str, str | None, bool]:
    """Return the text, the declared refusal and whether a tool is called, of a string or a list of parts."""
    if content is None or isinstance(content, str):
        return content or "", None, False
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise InputError(f"the content of message {index} must be a string, a list of parts or null, not {type(content).__name__}")
    texts, refusal, calls_tool = [], None, False
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str):
            texts.append(part)
        elif not isinstance(kind, str):
            raise InputError(f"message {index} has a content part that is neither a string nor an object with a type")
        elif kind == "refusal":
            refusal = str(part.get("refusal") or "")
        elif kind in _TOOL_PARTS:
            calls_tool = True
        elif kind not in _REASONING_PARTS:
            texts.append(_part_text(kind, part, index))
    return "\n".join(text for text in texts if text), refusal, calls_tool


def _part_text(kind: str, part: Mapping[str, Any], index: int) -> str:
    """Return a part's text, or a placeholder for a medium; nothing is ever fetched. Tool results are not the speaker's words."""
    if kind in _TEXT_PARTS:
        if not isinstance(part.get("text"), str):
            raise InputError(f"message {index} has a text part without a string in its field text")
        return str(part["text"])
    return next((mark for medium, mark in _MEDIA.items() if medium in kind), "")
