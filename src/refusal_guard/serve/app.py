"""The service as an ASGI application, for `refusal-guard serve` and for a server of your own."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..errors import InputError, MissingExtraError
from ..guard import Guard
from .limits import Limits

try:
    import fastapi
    import prometheus_client
    import uvicorn
except ImportError:
    raise MissingExtraError("the HTTP service", "serve") from None

from fastapi.security import HTTPBearer

import refusal_guard

from .batching import Batcher
from .gate import Gate
from .metrics import Counted, Metrics, exposition
from .problems import PROBLEMS, tell_problems
from .routes import Service, health, judging


def create_app(
    guard: Guard,
    *,
    token: str | None = None,
    limits: Limits = Limits(),
    registry: prometheus_client.CollectorRegistry | None = None,
) -> fastapi.FastAPI:
    """Return the application that judges with a guard.

    With a `token`, every route but /healthz and /readyz needs it as a bearer token. `/metrics` shows a `registry` of prometheus_client with
    the service's own figures added: with that of the guard's `PrometheusHook`, the guard's too. A detector that fails is answered with
    503, whatever the guard's `on_error`: what then happens to the response is the client's choice. Raises InputError for a token that is
    empty or can't stand in a header.
    """
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token != ""):
        raise InputError("a token is made of ASCII letters, digits and signs, and is not empty")
    batcher = Batcher(guard, limits)

    @asynccontextmanager
    async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
        yield
        batcher.close()

    app = fastapi.FastAPI(title="refusal-guard", version=refusal_guard.__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = Service(batcher, limits)
    app.state.metrics = Metrics(registry or prometheus_client.CollectorRegistry(), batcher)
    bearer = [fastapi.Depends(HTTPBearer(auto_error=False))] if token else []  # the gate checks it; this is for the OpenAPI document
    app.include_router(judging, dependencies=bearer, responses=PROBLEMS)
    app.include_router(exposition, dependencies=bearer, responses={401: PROBLEMS[401]})
    app.include_router(health)
    tell_problems(app)
    app.add_middleware(Gate, token=token, limits=limits)
    app.add_middleware(Counted, metrics=app.state.metrics)
    return app


def server_of(app: fastapi.FastAPI, limits: Limits) -> uvicorn.Server:
    """Return the server that runs an application within the limits; told to stop, it answers what it took."""
    longest = math.ceil(limits.body_timeout + limits.timeout) + 1
    config = uvicorn.Config(
        app,
        access_log=False,
        server_header=False,
        limit_concurrency=limits.max_connections + 1,  # it refuses at this number, and counts the connection that asks
        timeout_graceful_shutdown=longest,
    )
    return uvicorn.Server(config)
