"""What a client may cost the service before a place is taken: names, sizes, time, and connections.

`Limited` looks at requests, whatever server speaks HTTP; `guarded` looks at connections on which none has come yet.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_LINGER_S = 2.0
_HEADERS = {
    "content-security-policy": "; ".join(
        [
            "default-src 'none'",
            "script-src 'self' 'unsafe-inline'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    ),
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@dataclass(frozen=True)
class Limits:
    """What requests may cost.

    Attributes:
        upload_mb: largest body in MiB; larger ones are refused with 413.
        bodies_mb: all bodies that have come and are not answered, in MiB; more are refused with 503.
        body_s: within how many seconds a body must have come; slower ones are refused with 408.
        hosts: names by which the service may be called, beside localhost and addresses; others are refused with 400,
            so that no page from elsewhere reaches it under a name of its own.
    """

    upload_mb: int = 64
    bodies_mb: int = 1000
    body_s: float = 30.0
    hosts: tuple[str, ...] = ()

    def allows(self, host: str) -> bool:
        """Whether a Host header names this service; addresses do, because nobody else can let a name mean them."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name.lower() in {"localhost", *(allowed.lower() for allowed in self.hosts)}
        return True


class Limited:
    """ASGI middleware that holds requests against limits, and says in answers what browsers must not do with them.

    Args:
        app: what answers.
        limits: as above.
    """

    def __init__(self, app: App, limits: Limits) -> None:
        self._app = app
        self._limits = limits
        self._waiting = 0  # bytes of bodies that have come and are not answered

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope["method"], headers)
        if refusal is not None:
            await _refuse(scope["path"], refusal, receive, _safe(send))
            return
        body = _Body(receive, self._limits, self)
        try:
            await self._app(scope, body.receive, _safe(send))
        except ClientDisconnect:  # nobody is there to be told, and a log of tracebacks is what attackers like
            return
        finally:
            self._waiting -= body.size

    def room_for(self, size: int) -> bool:
        """Whether more bytes of a body may wait, which they then do."""
        if self._waiting + size > self._limits.bodies_mb * 2**20:
            return False
        self._waiting += size
        return True

    def _refusal(self, method: str, headers: Mapping[str, str]) -> HTTPException | None:
        if not self._limits.allows(headers.get("host", "")):
            words = f"{headers.get('host', 'no name')!r} is not this service; it is started with --allowed-host NAME"
            return HTTPException(400, words)
        if method != "POST":
            return None
        length, most = headers.get("content-length", ""), self._limits.upload_mb
        if "transfer-encoding" in headers or not (length.isascii() and length.isdigit()):
            return HTTPException(411, "expected a request with a Content-Length, and without Transfer-Encoding")
        if int(length) > most * 2**20:
            return HTTPException(413, f"{int(length):,} bytes are more than the limit of {most} MiB")
        return None


class _Body:
    """A request's body as it comes, counted and timed.

    Args:
        receive: gives the next part.
        limits: what it may cost.
        all_bodies: knows of the others.
    """

    def __init__(self, receive: Receive, limits: Limits, all_bodies: Limited) -> None:
        self.size = 0
        self._receive = receive
        self._limits = limits
        self._all = all_bodies
        self._deadline = asyncio.get_running_loop().time() + limits.body_s
        self._is_whole = False

    async def receive(self) -> Message:
        """The next part.

        Raises:
            HTTPException: 408 it is too slow; 413 it is too large; 503 too many others are waiting.
        """
        if self._is_whole:  # what comes now is the news that the client has gone
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(
                408, f"the body has not come within {self._limits.body_s:g} s", {"Connection": "close"}
            ) from None
        size = len(message.get("body", b""))
        if self.size + size > self._limits.upload_mb * 2**20:
            raise HTTPException(413, f"more bytes than the limit of {self._limits.upload_mb} MiB")
        if not self._all.room_for(size):
            raise HTTPException(503, "as many uploads are waiting as may be; try again", {"Retry-After": "1"})
        self.size += size
        self._is_whole = not message.get("more_body", False)
        return message


def guarded(protocol: type[Any], connections: int, header_s: float) -> type[Any]:
    """A protocol of uvicorn that closes a connection beyond so many, and one whose request does not begin in time."""

    class Guarded(protocol):  # type: ignore[misc]
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            if len(self.connections) > connections:
                transport.abort()
            else:
                self._arm()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._arm()
            else:
                self._disarm()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def _arm(self) -> None:
            if self._deadline is None:
                self._deadline = asyncio.get_running_loop().call_later(header_s, self._expire)

        def _disarm(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _expire(self) -> None:
            self._deadline = None
            if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
                self.transport.close()

    return Guarded


def _safe(send: Send) -> Send:
    """The same, with the headers that browsers heed."""
    added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return sending


async def _refuse(path: str, refusal: HTTPException, receive: Receive, send: Send) -> None:
    content = json.dumps({"error" if path.startswith("/v2") else "detail": refusal.detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    headers.append((b"connection", b"close"))  # what comes on it now is the body that was refused
    await send({"type": "http.response.start", "status": refusal.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": True})
    await _drop_body(receive)
    await send({"type": "http.response.body"})


async def _drop_body(receive: Receive) -> None:
    """Take what is still being sent, for a while: a client that is hung up on while it sends loses the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (await receive()).get("more_body", False):
                pass
