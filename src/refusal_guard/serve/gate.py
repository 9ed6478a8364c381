"""What stands before the routes: the token, and a body's kind, size and speed. What is turned away is read no further."""

from __future__ import annotations

import asyncio
import hmac
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from .problems import problem, unexpected

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .limits import Limits

_OPEN_PATHS = frozenset({"/healthz", "/readyz"})


class Gate:
    """Reads the body and lets the request through, or answers it itself: 401, 408, 413, 415, and 500 for what nobody expected."""

    def __init__(self, app: ASGIApp, token: str | None, limits: Limits) -> None:
        self._app = app
        self._token = token and token.encode()
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request of the ASGI protocol."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._admit(scope, Headers(scope=scope))
            await self._app(scope, _replay(await self._body(receive), receive), send)
        except ClientDisconnect:
            return
        except HTTPException as refused:
            await problem(refused.status_code, refused.detail, refused.headers)(scope, receive, send)
        except Exception as error:
            await unexpected(error)(scope, receive, send)

    def _admit(self, scope: Scope, headers: Headers) -> None:
        if self._token and scope["path"] not in _OPEN_PATHS and not self._is_token(_token_in(headers)):
            raise HTTPException(401, "a valid bearer token is needed", {"WWW-Authenticate": "Bearer"})
        size = int(headers.get("content-length", "0"))
        if size > self._limits.max_body:
            raise self._too_large()
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if (size or "transfer-encoding" in headers) and kind != "application/json":
            raise HTTPException(415, "the body must be JSON: send Content-Type: application/json")

    def _is_token(self, token: str) -> bool:
        """Compare in a time that does not tell how much of a token is right."""
        return hmac.compare_digest(token.encode(), self._token or b"")

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"a body may hold {self._limits.max_body:,} bytes")

    async def _body(self, receive: Receive) -> bytes:
        try:
            async with asyncio.timeout(self._limits.body_timeout):
                return await self._read(receive)
        except TimeoutError:
            message = f"the body did not arrive within {self._limits.body_timeout:g} seconds"
            raise HTTPException(408, message, {"Connection": "close"}) from None

    async def _read(self, receive: Receive) -> bytes:
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            if len(body) > self._limits.max_body:
                raise self._too_large()
            more = message.get("more_body", False)
        return bytes(body)


def _token_in(headers: Headers) -> str:
    """Return the bearer token, or what stands in X-API-Key, where LiteLLM puts it."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a channel that hands out a body that was read, and then what else comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed
