"""Guarded clients of SDKs whose methods all end in `client.request`, as those made by Stainless do (openai, anthropic).

An adapter says what its endpoints look like; the rest is the same for all: the copy of the client, the attempts, raw responses, streams.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any, Protocol, TypeVar, get_args

from pydantic import TypeAdapter

from .attempts import carry, report_of
from .errors import InputError
from .guard import Guard
from .policy import Fallback, Policy, Replace, Step, check_policy
from .run import RefusedWhen
from .streaming import ITERATOR, Hold, Source, StreamedCall, Transcript

__all__ = ["Body", "Endpoint", "Terms", "check_guard", "check_settings", "guarded_copy"]

C = TypeVar("C")
Body = dict[str, Any]
_RAW_HEADER = "X-Stainless-Raw-Response"
_REPLY_IDS = ("_request_id", "_workspace_id")
_OF_THE_REQUEST = frozenset({"idempotency-key"})
_OF_THE_CALLER = _OF_THE_REQUEST | {"authorization", "api-key", "x-api-key", "openai-organization", "openai-project"}


class Endpoint(Protocol):
    """What an adapter knows of an endpoint that asks a model. A body is that of a request, ready to be sent."""

    def messages(self, body: Body) -> list[Any] | None:
        """Return the messages before the answer; None when they can't be told."""

    def said(self, body: Body, added: list[Any]) -> Body:
        """Return the fields of a body to which messages of the chat shape are added."""

    def has_effects(self, body: Body) -> bool:
        """Return whether asking again would leave traces outside, so that it is not done."""

    def transcript(self, body: Body) -> Transcript:
        """Return an empty transcript of a stream that answers a request."""

    def read(self, response: Any) -> Any:
        """Return what `Guard.run` can read of a response, parsed or raw; None where it holds no answer."""

    def answer(self, body: Body, text: str) -> Body:
        """Return the body of a response with a text of ours."""

    def events(self, body: Body, text: str) -> list[Body]:
        """Return the events of a stream with a text of ours."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the calls of a client are guarded on; `endpoints` are named by their paths."""

    guard: Guard
    policy: Policy
    hold: Hold
    endpoints: Mapping[str, Endpoint]
    refused_when: RefusedWhen = "all"


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of a client's `request`; `options` are the SDK's FinalRequestOptions."""

    cast_to: Any
    options: Any
    stream: bool
    stream_cls: Any

    @property
    def path(self) -> str | None:
        """The path that is posted to; None for other methods."""
        return str(self.options.url).partition("?")[0] if self.options.method.lower() == "post" else None

    @property
    def body(self) -> Any:
        """The body that is posted, what `extra_body` adds to it included."""
        body, extra = self.options.json_data, self.options.extra_json
        return {**body, **extra} if isinstance(body, Mapping) and extra else body

    @property
    def raw(self) -> str | None:
        """What `with_raw_response` ("raw" or "true") or `with_streaming_response` ("stream") announces; None for neither."""
        headers = self.options.headers
        return headers.get(_RAW_HEADER) if isinstance(headers, Mapping) else None

    @property
    def read_by_hand(self) -> bool:
        """Whether the caller reads the bytes of the response, so that they are not there to be judged."""
        return self.raw == "stream" and not self.stream

    def sent(self, send: Callable[..., Any]) -> Any:
        """Send the request; what an awaiting client returns has to be awaited."""
        return send(self.cast_to, self.options, stream=self.stream, stream_cls=self.stream_cls)

    def changed(self, **fields: Any) -> Request:
        """Return the request with other options."""
        options = self.options.model_copy()
        for name, value in fields.items():
            setattr(options, name, value)
        return replace(self, options=options)

    def again(self, body: Body, *, elsewhere: bool) -> Request:
        """Return the request of a further attempt; `elsewhere`, at another client, the caller's own credentials stay behind."""
        headers, dropped = self.options.headers, _OF_THE_CALLER if elsewhere else _OF_THE_REQUEST
        if isinstance(headers, Mapping):
            headers = {name: value for name, value in headers.items() if name.lower() not in dropped}
        return self.changed(json_data=body, extra_json=None, idempotency_key=None, headers=headers)

    def unparsed(self) -> tuple[Request, Callable[[Any], Any] | None]:
        """Return the request without the function that parses its answer, and that function: a refusal is not of the form it expects."""
        parse = self.options.post_parser
        if self.raw or not callable(parse):
            return self, None
        return self.changed(post_parser=type(self.options).model_fields["post_parser"].get_default()), parse


def check_settings(policy: object, guard: object, kind: type | tuple[type, ...], name: str) -> None:
    """Raise InputError for settings of a guarded client that are of the wrong kind; `kind` is what it falls back to, `name` says so."""
    checked = check_policy(policy)
    check_guard(guard)
    for step in checked.steps:
        if isinstance(step, Fallback) and not isinstance(step.targets[0], str) and not isinstance(step.targets[0], kind):
            raise InputError(
                f"this client falls back to names of models and to {name} clients, not to a {type(step.targets[0]).__name__}; "
                "Guard.run falls back to functions"
            )


def check_guard(guard: object) -> None:
    """Raise InputError for what is neither a guard nor None, which stands for the embedded model's."""
    if guard is not None and not isinstance(guard, Guard):
        raise InputError(f"the guard must be a Guard, not {type(guard).__name__}: give a detector as Guard(detector)")


def guarded_copy(client: C, terms: Terms) -> C:
    """Return a copy of a client whose requests to the endpoints are guarded; it shares the connections, and its copies are guarded too."""
    return _guarded(client.copy(), terms)  # type: ignore[attr-defined, no-any-return]


def _guarded(client: Any, terms: Terms) -> Any:
    """Guard a client in place. Its class stays: SDKs look for credentials in clients of their own classes only."""
    send, copy = client.request, client.copy
    awaits = inspect.iscoroutinefunction(type(client).request)
    prepare = getattr(client, "_copy_and_prepare", None)  # newer SDKs read one-shot bodies here, and it does no harm to do it twice

    def request(cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None) -> Any:
        asked = Request(cast_to, options, stream, stream_cls)
        endpoint = terms.endpoints.get(asked.path or "")
        if endpoint is None or asked.read_by_hand or not isinstance(asked.body, Mapping):
            return asked.sent(send)
        call = partial(GuardedCall, terms, client, send, endpoint)
        return _arun(call, asked, prepare) if awaits else call(_prepared(asked, prepare)).run()

    @wraps(copy)
    def copied(*args: Any, **changes: Any) -> Any:
        return _guarded(copy(*args, **changes), terms)

    for name, method in (("request", request), ("copy", copied), ("with_options", copied)):
        setattr(client, name, method)
    return client


def _prepared(request: Request, prepare: Callable[[Any], Any] | None) -> Request:
    return request if prepare is None else replace(request, options=prepare(request.options))


async def _arun(call: Callable[[Request], GuardedCall], request: Request, prepare: Callable[[Any], Any] | None) -> Any:
    prepared = _prepared(request, prepare)
    if inspect.isawaitable(prepared.options):
        prepared = replace(prepared, options=await prepared.options)
    return await call(prepared).arun()


class GuardedCall:
    """One call under a guard, asked as the SDK asks; `run` and `arun` differ in nothing but waiting.

    The caller gets what the SDK would return: the parsed response, the raw one, or the stream; and the report is on it.
    """

    def __init__(self, terms: Terms, client: Any, send: Callable[..., Any], endpoint: Endpoint, request: Request) -> None:
        self._request, self._parse = request.unparsed()
        self._terms, self._client, self._send, self._endpoint = terms, client, send, endpoint
        self._body: Body = dict(request.body)
        self._before = endpoint.messages(self._body)
        self._attempts = 0
        self._stream: Any = None
        self._error_reply: Any = None
        policy = terms.policy.adapted(self._adapted)
        self._policy = policy.within(attempts=1) if endpoint.has_effects(self._body) else policy

    def run(self) -> Any:
        """Make the call."""
        if self._request.stream:
            return self._streamed().run(self._asking(self._send, self._client, self._opened))
        response = self._terms.guard.run(
            self._asking(self._send, self._client), policy=self._policy, read=self._endpoint.read, **self._answered
        )
        return self._parsed(response)

    async def arun(self) -> Any:
        """Make the call, awaiting."""
        if self._request.stream:
            return await self._streamed().arun(self._asking(self._send, self._client, self._aopened))
        ask = self._asking(self._send, self._client)
        return self._parsed(await self._terms.guard.arun(ask, policy=self._policy, read=self._endpoint.read, **self._answered))

    @property
    def _answered(self) -> dict[str, Any]:
        return {"messages": self._before, "refused_when": self._terms.refused_when}

    def _streamed(self) -> StreamedCall:
        transcript = partial(self._endpoint.transcript, self._body)
        return StreamedCall(self._terms.guard, self._policy, self._terms.hold, transcript, **self._answered)

    def _asking(self, send: Callable[..., Any], client: Any, opened: Callable[[Any], Any] | None = None) -> Callable[..., Any]:
        """Return the call that `Guard.run` makes: it takes what a policy changes, and tells its model by a default, and its address."""

        def ask(*, model: str | None = None, messages: list[Any] | None = None, temperature: float | None = None) -> Any:
            request, self._attempts = self._request, self._attempts + 1
            if self._attempts > 1:
                added = (messages or [])[len(self._before or ()) :]
                request = request.again(self._changed(model, added, temperature), elsewhere=send is not self._send)
            return request.sent(send) if opened is None else opened(partial(request.sent, send))

        asking: Any = partial(ask, model=self._body.get("model"))
        asking.address = _address(client)
        return asking  # type: ignore[no-any-return]

    def _changed(self, model: str | None, added: list[Any], temperature: float | None) -> Body:
        given = {"model": model, "temperature": temperature}
        changed = {**self._body, **{name: value for name, value in given.items() if value is not None}}
        return {**changed, **self._endpoint.said(self._body, added)} if added else changed

    def _opened(self, sent: Callable[[], Any]) -> Source:
        with self._error_kept():
            reply = sent()
        self._stream = reply.parse() if self._request.raw else reply
        return Source(stream=self._stream, result=reply)

    async def _aopened(self, sent: Callable[[], Any]) -> Source:
        with self._error_kept():
            reply = await sent()
        stream = reply.parse() if self._request.raw else reply
        self._stream = await stream if inspect.isawaitable(stream) else stream
        return Source(stream=self._stream, result=reply)

    @contextmanager
    def _error_kept(self) -> Iterator[None]:
        """Remember the reply to a request that was refused by an error: a stream that stands in is built on it."""
        try:
            yield
        except Exception as error:
            self._error_reply = getattr(error, "response", None)
            raise

    def _adapted(self, step: Step) -> Step:
        """Turn clients into calls, and a text that stands in for a response into a response."""
        if isinstance(step, Fallback) and not isinstance(step.targets[0], str):
            return Fallback(self._elsewhere(step.targets[0]), model=step.model, when=step.when)
        if isinstance(step, Replace) and isinstance(step.by, str):
            if self._request.raw:
                raise InputError("a text can't replace a raw response: give Replace a function that makes one, or ask without raw")
            return Replace(partial(self._stand_in, step.by), when=step.when)
        return step

    def _elsewhere(self, client: Any) -> Callable[..., Any]:
        awaits = inspect.iscoroutinefunction(type(client).request)
        return self._asking(client.request, client, (self._aopened if awaits else self._opened) if self._request.stream else None)

    def _stand_in(self, text: str, refused: Any) -> Any:
        if not self._request.stream:
            return TypeAdapter(self._request.cast_to).validate_python(self._endpoint.answer(self._body, text))
        stream = self._stream
        if stream is None:  # the provider refused before there was one
            make = self._request.stream_cls
            stream = make(cast_to=self._request.cast_to, response=self._error_reply, client=self._client)
        adapter: TypeAdapter[Any] = TypeAdapter(get_args(self._request.stream_cls)[0])
        events = [adapter.validate_python(event) for event in self._endpoint.events(self._body, text)]
        setattr(stream, ITERATOR, _later(events) if hasattr(stream, "__aiter__") else iter(events))
        return stream

    def _parsed(self, response: Any) -> Any:
        """Do what the SDK does with an answer whose form was asked for."""
        if self._parse is None or self._endpoint.read(response) is None:
            return response
        report = report_of(response)
        try:
            parsed = self._parse(response)
        except Exception as error:
            carry(error, report)
            raise
        for name in _REPLY_IDS:
            if hasattr(response, name):
                setattr(parsed, name, getattr(response, name))
        return carry(parsed, report)


def _address(client: Any) -> str:
    """Return where a client's requests go, without the user and the password that a URL may hold."""
    url = client.base_url
    return f"{url.scheme}://{url.netloc.decode()}{url.path}"


async def _later(events: Iterable[Any]) -> AsyncIterator[Any]:
    for event in events:
        yield event
