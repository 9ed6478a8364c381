"""What the routes take and answer, and the conversations in it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from ..conversation import Conversation

_WITH_ANSWER = {"contains": {"type": "object", "properties": {"role": {"const": "assistant"}}, "required": ["role"]}}


class Pair(BaseModel):
    """A response, and the prompt it answers."""

    model_config = ConfigDict(extra="forbid")

    response: str | None
    prompt: str | None = None

    def conversation(self) -> Conversation:
        """Return what is judged."""
        return Conversation.from_pair(self.prompt, self.response)


class TextPart(BaseModel):
    """A part of a message that is text; `type` as in the OpenAI and Anthropic APIs."""

    model_config = ConfigDict(extra="allow")

    type: Literal["text", "input_text", "output_text"]
    text: str


class OtherPart(BaseModel):
    """A part of a message of any other type: a tool's call, an image, a declared refusal."""

    model_config = ConfigDict(extra="allow")

    type: str


class ChatMessage(BaseModel):
    """A message in the shape of the OpenAI or Anthropic API; its other fields are taken as they are."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[TextPart | OtherPart | str] | None = None


class Chat(BaseModel):
    """Chat messages, of which the last run of the assistant's is judged."""

    model_config = ConfigDict(extra="forbid")

    messages: Annotated[list[ChatMessage], Field(json_schema_extra=_WITH_ANSWER)]

    def conversation(self) -> Conversation:
        """Return what is judged; raises InputError when no message is the assistant's."""
        return Conversation.from_messages([message.model_dump() for message in self.messages])


FORMS = PAIR, CHAT, ONE, MANY = "a pair", "a chat", "one", "many"
"""What a body is found to be; pydantic writes it into the place of an error."""


def _form(body: Any) -> str:
    return CHAT if isinstance(body, dict) and "messages" in body else PAIR


def _number(body: Any) -> str:
    return MANY if isinstance(body, list) else ONE


One = Annotated[Annotated[Pair, Tag(PAIR)] | Annotated[Chat, Tag(CHAT)], Discriminator(_form)]
OneOrMany = Annotated[Annotated[One, Tag(ONE)] | Annotated[list[One], Tag(MANY)], Discriminator(_number)]


class ScannerRequest(BaseModel):
    """A request of LLM Guard's API."""

    prompt: str
    output: str
    scanners_suppress: list[str] = []


class ScanOutput(BaseModel):
    """LLM Guard's answer to /scan/output: risks from -1.0 to 1.0 by scanner."""

    is_valid: bool
    scanners: dict[str, float]


class AnalyzeOutput(ScanOutput):
    """LLM Guard's answer to /analyze/output."""

    sanitized_output: str


Name = Annotated[str | None, AfterValidator(lambda name: name if name and name.strip() else None)]


class GuardrailRequest(BaseModel):
    """A request of LiteLLM's generic guardrail API; the fields that are not needed here are not read.

    A "response" comes without the messages it answers; those came with the "request" of the same `litellm_call_id`.
    """

    input_type: Literal["request", "response"]
    litellm_call_id: str | None = None
    litellm_trace_id: Name = None
    model: Name = None
    structured_messages: list[dict[str, Any]] | None = None
    texts: list[str] | None = None
    tool_calls: list[Any] | None = None


class GuardrailAnswer(BaseModel):
    """LiteLLM's answer: NONE lets the response through, BLOCKED does not."""

    action: Literal["NONE", "BLOCKED"] = "NONE"
    blocked_reason: str | None = None


class Status(BaseModel):
    """Whether the service lives or is ready."""

    status: Literal["ok"] = "ok"


def encodable(text: str) -> str:
    """Return a text with lone surrogates, which JSON can hold and UTF-8 can't, as question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
