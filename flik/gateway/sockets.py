"""WebSockets: STOMP on `/ws`, plain JSON on `/ws/json`; the protocols themselves are `flik/domain`'s.

A connection is a `Session` that is driven here: what comes in goes to it, what it puts out is done. One lock
keeps the order: a question of the session is answered, and an event is sent whole, before anything else is.

Each subscription has a follower of its own and a task that waits for it; a client that reads slowly holds its
connection's lock while it does, so the followers' mailboxes fill, and they go on from the log. One that takes
nothing for `SEND_S` is closed. The connection counts as one follower, and each of its subscriptions as one thing
that its key follows. Before its client has said who it is it counts as a stranger's.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from flik.domain.event import Kind as EventKind
from flik.domain.follow import (
    Authenticate,
    Close,
    CloseCode,
    Kind,
    Output,
    Send,
    Session,
    Subscribe,
    Unsubscribe,
    closing,
)
from flik.domain.identity import Caller, Scope
from flik.domain.json_follow import JsonSession
from flik.domain.stomp.requests import subprotocol
from flik.domain.stomp.session import StompSession
from flik.errors import FieldError, FlikError, InvalidRequest, RequestError, Unauthenticated
from flik.gateway import paths, problems
from flik.gateway.following import authenticate_follower, following_of, redeemed, seen
from flik.gateway.identity import caller_by
from flik.gateway.parts import parts_of
from flik.gateway.tasks import answers_for
from flik.pipeline.follow import Follower, Following
from flik.pipeline.follow_tenant import TenantFollowing

SEND_S = 30.0
CLOSE_S = 1.0  # so long it is tried to say that it is over, at the end
WAIT_S = 60.0
_SAYING = frozenset({"ticket", "token", "key", "api_key", "access_token"})  # URLs are logged: only a ticket opens
_log = logging.getLogger("flik.gateway")
router = APIRouter()


@router.websocket("/ws")
async def stomp(socket: WebSocket) -> None:
    """Speak STOMP 1.0 to 1.2."""
    chosen = subprotocol(socket.scope.get("subprotocols", []))
    await _serve(socket, lambda now, explain: StompSession(now, explain, session_id=secrets.token_hex(8)), chosen)


@router.websocket("/ws/json")
async def plain_json(socket: WebSocket) -> None:
    """Speak JSON, an object a message."""
    await _serve(socket, JsonSession, None)


async def _serve(socket: WebSocket, open_session: Callable[..., Session], chosen: str | None) -> None:
    with ExitStack() as as_stranger:
        try:
            caller = await _of_handshake(socket)
            if caller is None:
                as_stranger.enter_context(parts_of(socket).followers.stranger())
        except FlikError as error:
            await _deny(socket, error)
            return
        await socket.accept(chosen)
        session = open_session(time.monotonic(), lambda error: problems.problem_of(error, socket))
        await Connection(socket, session, as_stranger).run(caller)


async def _deny(socket: WebSocket, error: FlikError) -> None:
    if "websocket.http.response" not in socket.scope.get("extensions", {}):
        await socket.close(closing(error).code)
        return
    answer = problems.respond(problems.problem_of(error, socket), {"X-Request-ID": problems.request_id_of(socket)})
    await socket.send_denial_response(answer)


async def _of_handshake(socket: WebSocket) -> Caller | None:
    """Return whom the handshake is from; None when it does not say. A key in the URL says nothing, and is refused."""
    says = "authorization" in socket.headers or not _SAYING.isdisjoint(socket.query_params)
    return await authenticate_follower(socket) if says else None


class _Over(Exception):  # nothing went wrong
    """The connection is closed."""


class Connection:
    """One WebSocket and its session. `as_stranger` is closed when it is known whose it is."""

    def __init__(self, socket: WebSocket, session: Session, as_stranger: ExitStack) -> None:
        self._socket = socket
        self._session = session
        self._as_stranger = as_stranger
        self._parts = parts_of(socket)
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._broken = asyncio.Event()  # a subscription found that nothing more can be sent
        self._caller: Caller | None = None
        self._open = AsyncExitStack()
        self._subscriptions: dict[str, tuple[asyncio.Task[None], AsyncExitStack]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def run(self, caller: Caller | None) -> None:
        """Serve until either side ends it."""
        reading = asyncio.create_task(self._read(caller), name="socket")
        ticking = asyncio.create_task(self._tick(), name="heart-beat")
        breaking = asyncio.create_task(self._broken.wait(), name="broken")
        try:
            await asyncio.wait({reading, ticking, breaking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._end_all(reading, ticking, breaking)
        for each in (reading, ticking):
            if not each.cancelled() and (error := each.exception()) is not None and not isinstance(error, _Over):
                raise error

    async def _end_all(self, *loops: asyncio.Task[Any]) -> None:
        tasks: list[asyncio.Task[Any]] = [*loops, *(task for task, _ in self._subscriptions.values()), *self._ending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _, entered in self._subscriptions.values():
            await entered.aclose()
        await self._open.aclose()
        if self._socket.application_state is WebSocketState.CONNECTED:
            with suppress(WebSocketDisconnect, RuntimeError, OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._socket.close(CloseCode.GOING_AWAY)

    # ---- its loops

    async def _read(self, caller: Caller | None) -> None:
        if caller is not None:
            await self._do(self._welcome, caller)
        while True:
            try:
                message = await self._socket.receive()
            except (WebSocketDisconnect, RuntimeError):
                raise _Over from None
            if message["type"] != "websocket.receive":
                raise _Over
            data = message.get("bytes")
            text = message.get("text")
            given: bytes = data if data is not None else (text or "").encode(errors="replace")
            await self._do(self._session.receive, given)

    def _welcome(self, caller: Caller, now: float) -> list[Output]:
        self._enter(caller)
        return self._session.accept(now)

    async def _tick(self) -> None:
        """Send heart-beats, and give up a client that sends none."""
        while True:
            at = self._session.wakes_at()
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if at is None else max(0.0, at - time.monotonic())):
                    await self._changed.wait()
                continue
            await self._do(self._session.tick)

    async def _follow(self, subscription_id: str, following: Follower, last_seq: int) -> None:
        """Send what a subscription is told, until it is cancelled; `last_seq` is where it goes on from."""
        answers, goes_on = answers_for(self._socket), True
        while True:
            if goes_on is following.ended:
                goes_on = not goes_on
                await self._do(partial(self._session.note, goes_on=goes_on), subscription_id)
            event = await following.next(WAIT_S)
            if event is None:
                continue
            last_seq = event.seq or last_seq
            body = orjson.dumps(answers.event(event))
            told = partial(self._session.event, is_reset=event.kind == EventKind.RESET, is_numbered=event.seq > 0)
            await self._do(told, subscription_id, last_seq, body)

    # ---- what the session wants done

    async def _do(self, ask: Callable[..., list[Output]], *what: Any) -> None:
        """Ask the session, `now` as the last argument, and do what it puts out before anything else is done here.

        Raises:
            _Over: the connection is closed.
        """
        async with self._lock:
            try:
                outputs = ask(*what, time.monotonic())
                while outputs:
                    outputs = await self._perform(outputs)
            except FlikError as error:
                await self._perform(self._session.end(error, time.monotonic()))
            finally:
                self._changed.set()

    async def _perform(self, outputs: Sequence[Output]) -> list[Output]:
        """Do what was put out; return what the session puts out when its question is answered."""
        for output in outputs:
            if isinstance(output, Send):
                await self._send(output.data)
            elif isinstance(output, Close):
                await self._close(output)
            elif isinstance(output, Unsubscribe):
                await self._unsubscribe(output.subscription_id)
            elif isinstance(output, Authenticate):
                return await self._answer(self._authenticate(output))
            else:
                return await self._answer(self._subscribe(output))
        return []

    async def _answer(self, doing: Awaitable[None]) -> list[Output]:
        try:
            await doing
        except FlikError as error:
            return self._session.refuse(error, time.monotonic())
        return self._session.accept(time.monotonic())

    async def _send(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(SEND_S):
                await self._socket.send_text(data.decode())
        except (WebSocketDisconnect, RuntimeError, OSError, TimeoutError):
            raise _Over from None

    async def _close(self, close: Close) -> None:
        with suppress(WebSocketDisconnect, RuntimeError, OSError, TimeoutError):
            async with asyncio.timeout(SEND_S):
                await self._socket.close(close.code, close.reason)
        raise _Over

    async def _authenticate(self, asked: Authenticate) -> None:
        if asked.ticket is not None:
            self._enter(await redeemed(self._parts, asked.ticket))
        elif asked.token is not None:
            self._enter(await caller_by(asked.token, self._parts, Scope.READ))
        else:
            raise Unauthenticated("send a key: as Authorization: Bearer, or as the passcode")

    def _enter(self, caller: Caller) -> None:
        self._open.enter_context(self._parts.followers.counted(caller, self._revoke))
        self._as_stranger.close()
        self._caller = caller

    def _revoke(self, error: FlikError) -> None:
        """End the connection: its credential does not work any more."""
        ending = asyncio.create_task(self._end(error))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _end(self, error: FlikError) -> None:
        with suppress(_Over):
            await self._do(self._session.end, error)

    async def _subscribe(self, asked: Subscribe) -> None:
        entered, following = await self._followed(asked)
        task = asyncio.create_task(self._keep(asked.subscription_id, following, asked.from_seq or 0))
        self._subscriptions[asked.subscription_id] = task, entered
        task.add_done_callback(self._note_over)

    async def _followed(self, asked: Subscribe) -> tuple[AsyncExitStack, Follower]:
        """Enter what was asked for.

        Raises:
            FlikError: it cannot be followed.
        """
        caller, topic = self._caller, asked.topic
        if caller is None:
            raise Unauthenticated("say who you are first")
        async with AsyncExitStack() as entered:
            entered.enter_context(self._parts.followers.following(caller))
            if topic.kind is Kind.TENANT or topic.subject is None:
                resumes = asked.from_seq is not None
                of_tenant = TenantFollowing(
                    self._parts.hub, self._parts.tasks.find, _tenant_of(caller), resumes=resumes
                )
                await entered.enter_async_context(of_tenant)
                return entered.pop_all(), of_tenant
            following = self._following_of(topic.kind, topic.subject.lower(), asked)
            if not paths.is_uuid(topic.subject):
                raise following.not_found()
            await entered.enter_async_context(seen(following, caller))
            return entered.pop_all(), following

    def _following_of(self, kind: Kind, subject: str, asked: Subscribe) -> Following:
        if kind is Kind.DAG:
            return self._parts.hub.follow_dag(subject, asked.from_seq or 0)
        return following_of(self._parts, subject, asked.from_seq or 0, asked.first_chunk)

    async def _keep(self, subscription_id: str, following: Follower, last_seq: int) -> None:
        try:
            await self._follow(subscription_id, following, last_seq)
        except RequestError as error:  # the task is gone
            await self._do(self._session.end, error)

    def _note_over(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, _Over):
            self._broken.set()
        elif error is not None:
            _log.error("a subscription broke", exc_info=error)
            self._revoke(FlikError("a subscription broke"))

    async def _unsubscribe(self, subscription_id: str) -> None:
        """End a subscription. Its task may not even have begun: so what was entered for it is left here."""
        task, entered = self._subscriptions[subscription_id]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await entered.aclose()
        del self._subscriptions[subscription_id]


def _tenant_of(caller: Caller) -> str:
    if caller.tenant_id is None:
        raise InvalidRequest((FieldError("/tenant", "this credential is of no tenant; follow tasks one by one"),))
    return caller.tenant_id
