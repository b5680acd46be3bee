"""Errors as answers: one status, one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ad_dinov3.errors import AdDinoError, ConfigError, ImageError, ShapeError
from ad_dinov3.serve.answers import ErrorAnswer
from ad_dinov3.serve.judge import BusyError
from ad_dinov3.serve.models import UnknownModelError
from ad_dinov3.serve.normals import UnknownImageError

REFUSALS = {
    400: "the body is not what its headers say, or the service is called by a name that is not its own",
    404: "there is none of that name",
    408: "the body has not come in time",
    411: "the size is unknown",
    413: "the request is too large",
    415: "the body is neither a form nor an image",
    422: "not an image, or a wish that cannot be",
    500: "the model failed",
    503: "as many images are in hand as may be; come again after Retry-After seconds",
}
"""What requests with images may be refused with."""
# the first that fits counts; whatever the package raises else is the service's own failure
_STATUS: tuple[tuple[type[AdDinoError], int], ...] = (
    (UnknownModelError, 404),
    (UnknownImageError, 404),
    (BusyError, 503),
    (ImageError, 422),
    (ConfigError, 422),
    (ShapeError, 422),
    (AdDinoError, 500),
)


@dataclass(frozen=True)
class Refusal:
    """A status, what to say, and headers."""

    status: int
    words: str
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal_of(error: Exception) -> Refusal:
    """How an error is told to the one who asked."""
    if isinstance(error, HTTPException):
        return Refusal(error.status_code, str(error.detail), error.headers or {})
    if isinstance(error, RequestValidationError):
        return Refusal(422, "; ".join(f"{part['loc'][-1]}: {part['msg']}" for part in error.errors()))
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return Refusal(status, str(error), {"Retry-After": "1"} if status == 503 else {})


def described(statuses: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Refusals as OpenAPI declares them."""
    return {status: {"model": ErrorAnswer, "description": words} for status, words in statuses.items()}


def tell_refusals(app: FastAPI) -> None:
    """Answer every error that the app raises on purpose with its ``detail``."""
    for error in (AdDinoError, HTTPException, RequestValidationError):
        app.add_exception_handler(error, _told)


def refused(path: str, refusal: Refusal) -> Response:
    """The answer to a request for a path: ``detail``, or ``error`` and no 422 below /v2, as its protocol has it."""
    is_v2 = path.startswith("/v2")
    status = 400 if is_v2 and refusal.status == 422 else refusal.status
    return JSONResponse({"error" if is_v2 else "detail": refusal.words}, status, dict(refusal.headers))


async def _told(request: Request, error: Exception) -> Response:
    return refused(request.url.path, refusal_of(error))
