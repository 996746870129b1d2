"""What tells about the service itself: status, health, metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from flik import __version__, schemas
from flik.domain.identity import Scope
from flik.errors import RequestError, Unavailable
from flik.gateway import headers
from flik.gateway.identity import authenticate
from flik.gateway.parts import Parts, parts_of
from flik.gateway.responses import json_response
from flik.telemetry import labelled, merged

_PATIENCE_S = 2.0
_log = logging.getLogger("flik.gateway")
_T = TypeVar("_T")
router = APIRouter(tags=["service"])


@router.get("/", response_model=schemas.ServiceStatus)
async def get_status(request: Request) -> Response:
    """Say what this is and where to go on."""
    parts = parts_of(request)
    links = {"health": "/health", "metrics": "/metrics", "openapi": "/openapi.json", "tasks": "/api/v1/tasks"}
    return json_response({"service": "flik", "version": __version__, "region": parts.region, "links": links})


@router.get(
    "/health", response_model=schemas.Health, responses={503: {"model": schemas.Health, **headers.told("Retry-After")}}
)
async def get_health(request: Request) -> Response:
    """Say whether Flik can do its work. Redis is shown, but nothing that was promised needs it."""
    parts = parts_of(request)
    up, components = await look(parts)
    words = {name: "UP" if well else "DOWN" for name, well in components.items()}
    said = {"status": "UP" if up else "DOWN", "components": words, "auth": "open" if parts.is_open else "keys"}
    return json_response(said) if up else json_response(said, 503, {"Retry-After": "1"})


async def look(parts: Parts) -> tuple[bool, dict[str, bool]]:
    """Return whether Flik can do its work, and which of its components are well."""
    pinged, redis, stats = await asyncio.gather(
        _soon(_answered(parts.tasks.ping())), _soon(parts.hot.ping()), _soon(parts.queue.stats())
    )
    models = bool(stats) and all(kind["workers"] for kind in stats["types"].values())
    ready = bool(stats) and stats["ready"]
    components = {"queue": ready, "postgresql": bool(pinged), "redis": bool(redis), "models": models}
    return all(components[name] for name in ("queue", "postgresql", "models")), components


async def _answered(question: Awaitable[None]) -> bool:
    await question
    return True


async def _soon(question: Awaitable[_T]) -> _T | None:
    """Return the answer; None when it fails or takes longer than `_PATIENCE_S`."""
    asked = asyncio.ensure_future(question)
    asked.add_done_callback(_note_failure)
    done, _ = await asyncio.wait({asked}, timeout=_PATIENCE_S)
    if not done:
        # Not waited for: a statement that is cancelled on a frozen PostgreSQL takes 10 s more to end.
        asked.cancel()
        return None
    return None if asked.cancelled() or asked.exception() else asked.result()


def _note_failure(asked: asyncio.Future[_T]) -> None:
    if not asked.cancelled() and (error := asked.exception()) is not None:
        _log.warning("a component did not answer: %s", error)


@router.get("/metrics", response_class=PlainTextResponse)
async def get_metrics(request: Request) -> Response:
    """Return the metrics of the region's gateway replicas, queue and models, as Prometheus text.

    Those that name tenants are for an operator's key only. While Redis is away, this replica shows itself alone.
    """
    parts = parts_of(request)
    shown = slice(None if await _is_operator(request) else 1)
    replicas, queue = await asyncio.gather(_soon(parts.snapshots.exchange()), _soon(parts.queue.metrics()))
    if replicas is None:
        replicas = {parts.snapshots.replica: parts.snapshots.read()}
    gateways = [labelled(text, "replica", name) for name, texts in sorted(replicas.items()) for text in texts[shown]]
    text = merged(*gateways, queue or "# the queue is not available\n")
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _is_operator(request: Request) -> bool:
    try:
        return "authorization" in request.headers and bool(await authenticate(request, Scope.ADMIN))
    except (RequestError, Unavailable):
        return False
