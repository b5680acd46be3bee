"""Every request has an id, is counted and timed, and is a line of the access log where there is one."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ad_dinov3.serve.metrics import Metrics

REQUEST_ID = "X-Request-ID"
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Observed:
    """ASGI middleware; it goes around all others.

    Args:
        app: what answers.
        metrics: takes note of every request.
        log_line: takes a line of JSON for each; None: there is no log.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, log_line: Callable[[str], None] | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._log_line = log_line

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request_id, started = _request_id(scope), time.perf_counter()
        status, sent = 500, 0

        async def noting(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            else:
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            seconds = time.perf_counter() - started
            self._metrics.request(_route(scope), status, seconds)
            if self._log_line is not None:
                self._log_line(_line(scope, {"request_id": request_id, "status": status, "bytes": sent}, seconds))


def _request_id(scope: Scope) -> str:
    """The one that the request came with, where it is harmless, or a new one."""
    given = Headers(scope=scope).get(REQUEST_ID, "")
    return given if _ID.fullmatch(given) else uuid.uuid4().hex


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "none")


def _line(scope: Scope, answered: dict[str, object], seconds: float) -> str:
    """One request as JSON: no query, no headers, nothing of the body."""
    client = scope.get("client")
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "client": client[0] if client else None,
        "method": scope["method"],
        "path": scope["path"],
        **answered,
        "seconds": round(seconds, 4),
    }
    return json.dumps(line, ensure_ascii=True)
