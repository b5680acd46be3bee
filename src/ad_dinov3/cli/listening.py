"""How the commands that answer requests listen, and what they let a connection cost."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ad_dinov3.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

_CONNECTIONS = 256  # open at once, waiting ones included
_HEADER_S = 10.0  # within which a request has to begin
_STOP_S = 30  # that requests in hand have when the service is told to stop


def listen(host: str, port: int) -> socket.socket:
    """A socket at the address, before the model is loaded for nothing.

    Raises:
        ConfigError: the address is taken, or not of this machine.
    """
    try:
        listening = socket.create_server((host, port))
        # Answers leave at once; asyncio sees to that only on sockets that name their protocol, and 40 ms are lost.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port} ({error.strerror or error}); take another --port") from None


def names_of(host: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """The names by which a service that listens on ``host`` may be called, beside localhost and addresses."""
    return (host, *allowed) if host not in ("0.0.0.0", "::") else tuple(allowed)


def answer_requests(app: FastAPI, listening: socket.socket) -> None:
    """Answer what comes in at a socket until the process is told to stop."""
    import uvicorn
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    from ad_dinov3.serve.limits import guarded

    protocol = guarded(AutoHTTPProtocol, _CONNECTIONS, _HEADER_S)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_STOP_S, http=protocol)
    uvicorn.Server(config).run(sockets=[listening])
