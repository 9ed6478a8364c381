"""A server behind a URL: JSON calls with timeouts, bounded retries and a bounded number of connections.

Whether a call is sent again and what an answer means is decided in one place; only sending exists twice, blocking and awaiting.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from queue import LifoQueue
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from ..errors import EndpointError, InputError, MissingExtraError

try:
    import httpx
except ImportError:
    raise MissingExtraError("a detector behind a URL", "remote") from None

_OK = 200
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
_HINTS = {
    400: "it does not take this request: is it a server of this kind, and the text no longer than its model reads?",
    401: "it wants another API key: pass api_key, or set REFUSAL_GUARD_API_KEY",
    403: "this API key may not use it: pass another api_key, or set REFUSAL_GUARD_API_KEY",
    404: "it has no such route or model: check the URL, the model's name, and that it serves a classifier",
    413: "the batch or a text is too large for it: pass a smaller batch_size",
    422: "it could not read the request or tokenise a text: is it a server of this kind?",
    424: "its model is no classifier, or its back end failed: look into the server's log",
    429: "it is overloaded: lower the concurrency, or raise the number of retries",
}


class Call(NamedTuple):
    """One request: a path, and the object to post to it (None: a GET)."""

    path: str
    body: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Backoff:
    """When to send again: after a 429, a 5xx or a broken connection, at most `retries` times.

    The wait before retry n is drawn between 0 and `first` * 2**n seconds ("full jitter", Brooker, "Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015), is at least what Retry-After asks for, and at most `longest` seconds. A timeout is not retried: who is too
    slow is not helped by being asked again.
    """

    retries: int = 3
    first: float = 0.5
    longest: float = 30.0

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        if self.retries < 0 or not 0 <= self.first <= self.longest:
            raise InputError("a backoff needs retries >= 0 and 0 <= first <= longest seconds")

    def wait(self, attempt: int, outcome: httpx.Response | httpx.RequestError) -> float | None:
        """Return the seconds to wait after an attempt (counted from 0) before the next; None when the outcome stands."""
        if attempt >= self.retries or not _may_pass(outcome):
            return None
        asked = _retry_after(outcome) if isinstance(outcome, httpx.Response) else 0.0
        return min(self.longest, max(asked, random.uniform(0.0, min(self.longest, self.first * 2.0 ** min(attempt, 64)))))


class Endpoint:
    """The client of one server, for many threads and event loops.

    `timeout` is in seconds, for connecting and for each silence of the server. At most `concurrency` connections are open at once, and
    as many again in each event loop. `api_key` goes out as a bearer token and appears in no error. `detector` names whose it is.
    """

    def __init__(
        self,
        url: str,
        *,
        detector: str,
        api_key: str | None = None,
        timeout: float = 30.0,
        concurrency: int = 8,
        backoff: Backoff = Backoff(),
    ) -> None:
        if not timeout > 0 or concurrency < 1:
            raise InputError("timeout must be above 0 seconds and concurrency at least 1")
        self.url = checked_url(url)
        self.detector = detector
        self.concurrency = concurrency
        self._timeout = timeout
        self._backoff = backoff
        self._settings: dict[str, Any] = {
            "base_url": self.url,
            "headers": _headers(api_key),
            "timeout": httpx.Timeout(timeout, pool=None),  # waiting for one of our own connections is no fault of the server
            "limits": httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            "verify": httpx.create_ssl_context(),
        }
        # A client for each connection, lent to one thread at a time: the pool of httpcore 1.0 that threads share may take a connection
        # for expired that another thread has just begun to use, and closes it under that thread's hands.
        self._clients = [httpx.Client(**self._settings) for _ in range(concurrency)]
        self._free: LifoQueue[httpx.Client] = LifoQueue()
        for client in self._clients:
            self._free.put(client)
        self._async_clients: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}

    def send(self, calls: Sequence[Call]) -> list[Any]:
        """Return the JSON answers to calls, in order. Raises EndpointError at the first that fails; those not yet sent are dropped."""
        if self._clients[0].is_closed:
            raise self.error("this detector was closed: make a new one")
        if len(calls) < 2:
            return [self._send(call) for call in calls]
        with ThreadPoolExecutor(min(len(calls), self.concurrency)) as pool:
            return list(pool.map(self._send, calls))

    async def asend(self, calls: Sequence[Call]) -> list[Any]:
        """Do what `send` does, awaiting; cancelling it closes the connections in use."""
        client, slots = self._async_client(), asyncio.Semaphore(self.concurrency)

        async def bounded(call: Call) -> Any:
            async with slots:
                return await self._asend(client, call)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(bounded(call)) for call in calls]
        except ExceptionGroup as failed:
            first = failed.exceptions[0]
        else:
            return [task.result() for task in tasks]
        raise first

    def error(self, what: str, status: int | None = None) -> EndpointError:
        """Return an error about this server."""
        return EndpointError(f"{self.detector} at {self.url}: {what}", detector=self.detector, status=status)

    def close(self) -> None:
        """Close the connections of the blocking calls."""
        for client in self._clients:
            client.close()

    async def aclose(self) -> None:
        """Close all connections; those of the running event loop at once."""
        self.close()
        client = self._async_clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _send(self, call: Call) -> Any:
        attempt, outcome = 0, self._outcome(call)
        while (wait := self._backoff.wait(attempt, outcome)) is not None:
            time.sleep(wait)
            attempt, outcome = attempt + 1, self._outcome(call)
        return self._answer(outcome)

    async def _asend(self, client: httpx.AsyncClient, call: Call) -> Any:
        attempt, outcome = 0, await _aoutcome(client, call)
        while (wait := self._backoff.wait(attempt, outcome)) is not None:
            await asyncio.sleep(wait)
            attempt, outcome = attempt + 1, await _aoutcome(client, call)
        return self._answer(outcome)

    def _outcome(self, call: Call) -> httpx.Response | httpx.RequestError:
        client = self._free.get()
        try:
            return client.send(_request(client, call))
        except httpx.RequestError as error:
            return error
        finally:
            self._free.put(client)

    def _answer(self, outcome: httpx.Response | httpx.RequestError) -> Any:
        """Return what the server said. Errors are raised outside of any handler: httpx's own hold the request, and so text and key."""
        if isinstance(outcome, httpx.TimeoutException):
            raise self.error(f"no answer within {self._timeout:g} s: raise the timeout, or send smaller batches (batch_size)")
        if isinstance(outcome, httpx.RequestError):
            raise self.error(f"can't be reached ({type(outcome).__name__}): is the server up and the URL right?")
        status = outcome.status_code
        if status != _OK:
            hint = _HINTS.get(status, "the server failed: look into its log" if status >= _SERVER_ERROR else "is this the right URL?")
            raise self.error(f"the server answered {status}; {hint}", status)
        try:
            return outcome.json()
        except (ValueError, RecursionError):
            pass
        raise self.error("the answer is no JSON: is this the right URL?", status)

    def _async_client(self) -> httpx.AsyncClient:
        """Return the running loop's own client: a connection can't move to another loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._async_clients:
            for closed in [known for known in list(self._async_clients) if known.is_closed()]:
                self._async_clients.pop(closed, None)
            self._async_clients[loop] = httpx.AsyncClient(**self._settings)
        return self._async_clients[loop]


class EndpointDetector:
    """What detectors behind an endpoint share: closing, by hand or as a context manager."""

    endpoint: Endpoint

    def close(self) -> None:
        """Close the connections of `detect`."""
        self.endpoint.close()

    async def aclose(self) -> None:
        """Close the connections of `detect`, and those of `adetect` in the running event loop."""
        await self.endpoint.aclose()

    def __enter__(self) -> Self:
        """Return the detector."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        self.close()

    async def __aenter__(self) -> Self:
        """Return the detector."""
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close it."""
        await self.aclose()


def checked_url(url: str) -> str:
    """Return a server's URL without what clients add to it (a trailing slash or /v1). Raises InputError when it is none."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and url.split() == [url] and httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        usable = False
    if not usable:
        raise InputError("a server's URL looks like http://host:8080")
    if parts.username is not None or parts.query:
        raise InputError("a server's URL holds no user, key or query: pass api_key, or set REFUSAL_GUARD_API_KEY")
    return url.partition("#")[0].rstrip("/").removesuffix("/v1")


def _headers(api_key: str | None) -> dict[str, str]:
    if api_key is None:
        return {}
    if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise InputError("the API key must be printable ASCII without spaces")  # and is not quoted here
    return {"Authorization": f"Bearer {api_key}"}


def _request(client: httpx.Client | httpx.AsyncClient, call: Call) -> httpx.Request:
    return client.build_request("GET" if call.body is None else "POST", call.path, json=call.body)


async def _aoutcome(client: httpx.AsyncClient, call: Call) -> httpx.Response | httpx.RequestError:
    try:
        return await client.send(_request(client, call))
    except httpx.RequestError as error:
        return error


def _may_pass(outcome: httpx.Response | httpx.RequestError) -> bool:
    """Whether the same call may go well the next time."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code == _TOO_MANY_REQUESTS or outcome.status_code >= _SERVER_ERROR
    return isinstance(outcome, httpx.TransportError) and not isinstance(outcome, httpx.ReadTimeout | httpx.WriteTimeout)


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds that a Retry-After header asks for, given as seconds or as a date (RFC 9110, 10.2.3); 0 without a readable one."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
