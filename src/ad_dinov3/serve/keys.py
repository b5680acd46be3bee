"""Keys: who may ask. ``Authorization: Bearer KEY``, compared in constant time."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ad_dinov3.errors import ConfigError
from ad_dinov3.serve.refusals import Refusal, refused

VARIABLE = "AD_DINOV3_KEYS"
_KEY = re.compile(r"[!-~]{16,512}")
WORKBENCH = "/workbench"
"""Where a service has the workbench."""
OPEN = frozenset(
    {"/", "/docs", "/openapi.json", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/metrics"}
    | {WORKBENCH, f"{WORKBENCH}/"}
)
"""What is answered without a key: probes, figures, pages and the documentation, none of which shows an image."""
_OPEN_FOLDER = "/static-offline-docs/"


def read_keys(file: Path | None, variable: str = "") -> tuple[str, ...]:
    """The keys of a file, one a line, blank lines and those that begin with # left out, and of ``AD_DINOV3_KEYS``.

    Raises:
        ConfigError: the file cannot be read or has no key, or a key is shorter than 16 characters or has spaces.
    """
    keys = [word for word in re.split(r"[,\s]+", variable) if word]
    if file is not None:
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: cannot be read as a file of keys ({error})") from None
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise ConfigError(f"{file}: expected a key on each line, found none; `openssl rand -hex 32` makes one")
        keys += found
    if any(not _KEY.fullmatch(key) for key in keys):
        raise ConfigError(
            "expected keys of 16 to 512 letters, digits and signs without spaces; `openssl rand -hex 32` makes one"
        )
    return tuple(dict.fromkeys(keys))


def check_address(address: str, keys: Sequence[str], is_open: bool) -> None:
    """Refuse to listen beyond this machine without keys.

    Args:
        address: the IP address that is listened on.
        keys: that requests must have.
        is_open: the user wants to do without.

    Raises:
        ConfigError: others could ask, and nothing would ask them who they are.
    """
    if not ip_address(address).is_loopback and not keys and not is_open:
        raise ConfigError(
            f"{address} can be reached from other machines: give keys with --keys FILE or {VARIABLE}, or say --no-auth "
            "where something in front of the service asks for them"
        )


class Locked:
    """ASGI middleware that answers 401 to whoever has no key, before anything of the body is read.

    Args:
        app: what answers the others.
        keys: any of them will do.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and not self._may_pass(scope):
            refusal = Refusal(401, "expected Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"})
            return await refused(scope["path"], refusal)(scope, receive, send)
        return await self._app(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        if scope["path"] in OPEN or scope["path"].startswith(_OPEN_FOLDER):
            return True
        kind, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        given = _digest(key.strip())
        fits = [hmac.compare_digest(given, digest) for digest in self._digests]  # all of them, whichever fits
        return kind.lower() == "bearer" and any(fits)


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()
