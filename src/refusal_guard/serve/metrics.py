"""The figures of the service in Prometheus's text format: requests by route and status, their duration, and what waits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ..events.prometheus import PrometheusHook
from .batching import Batcher

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_UNKNOWN_ROUTE = "other"
exposition = APIRouter()


def registry_and_hook() -> tuple[CollectorRegistry, PrometheusHook]:
    """Return a registry with the process's figures, and the hook by which a guard adds its own."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry, PrometheusHook(registry)


class Metrics:
    """The service's own figures, in a registry."""

    def __init__(self, registry: CollectorRegistry, batcher: Batcher) -> None:
        self.registry = registry
        self.requests = Counter("refusal_guard_http_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.duration = Histogram("refusal_guard_http_request_duration_seconds", "Time to an answer.", ["route"], registry=registry)
        waiting = Gauge("refusal_guard_waiting_responses", "Responses that wait for the detector.", registry=registry)
        waiting.set_function(lambda: batcher.waiting)


class Counted:
    """Counts what passes through an application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the ASGI protocol."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(scope, message["status"], time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, counted)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", _UNKNOWN_ROUTE)
        self._metrics.requests.labels(route, status).inc()
        self._metrics.duration.labels(route).observe(seconds)


@exposition.get("/metrics", summary="Figures for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """Return the figures."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
