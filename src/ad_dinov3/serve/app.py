"""The detector's HTTP interface: an image comes in, the decision, the overlay, the map or the mask goes out.

    GET  /           a page to drop images on
    GET  /health     what is being served
    POST /predict    the decision and the regions, as JSON
    POST /overlay    the map drawn on the image, as JPEG
    POST /map        the anomaly map in [0, 1] at the image's size, as float32 TIFF
    POST /mask       255 where the map reaches the threshold, as PNG

An image is the file ``image`` of a multipart form. What is wrong with a request is told in its answer's ``detail``.
"""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, TypeVar

import numpy as np
from fastapi import FastAPI, Query, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse
from markupsafe import Markup
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ad_dinov3.data.decode import decode_bytes
from ad_dinov3.errors import AdDinoError, ConfigError, ImageError, ShapeError
from ad_dinov3.infer.decide import DecisionRule, describe_region
from ad_dinov3.infer.image_files import save_jpeg, save_map_tiff, save_mask
from ad_dinov3.infer.prediction import Prediction, conclude
from ad_dinov3.infer.scorer import Scorer
from ad_dinov3.report.page import render
from ad_dinov3.serve.batching import Batcher

_PAGE = Path(__file__).parent / "page"
T = TypeVar("T")


@dataclass(frozen=True)
class ServeOptions:
    """What holds for every request.

    Attributes:
        threshold: in [0, 1]; where a request names none.
        class_name: what images show, where a request does not say.
        batch_size: most images per call of the model.
        at_once: most images in hand, which bounds the memory; more are refused with 503.
        upload_mb: largest request, in MiB; larger ones are refused with 413.
    """

    threshold: float
    class_name: str = "object"
    batch_size: int = 8
    at_once: int = 16
    upload_mb: int = 64


class Wish(BaseModel):
    """How one image is to be judged; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float | None = Field(None, ge=0, le=1, description="from here on anomalous; default: the service's")
    min_area: int | None = Field(
        None, ge=1, description="regions with fewer px do not count; default: a quarter of a cell of the model's map"
    )
    regions_on_normal: bool = Field(
        False, description="outline and list regions on an image that is called normal, too"
    )
    class_name: str | None = Field(None, description="what the image shows; default: the service's")


class PredictWish(Wish):
    """The same, for an answer in JSON."""

    overlay: bool = Field(False, description="add the overlay, a JPEG in base64")


def create_app(scorer: Scorer, about: Mapping[str, object], options: ServeOptions) -> FastAPI:
    """The service as an ASGI application.

    Args:
        scorer: a detector, an exported session, or either through tiles; it is called from one thread.
        about: what ``/health`` says of the model.
        options: what holds for every request.
    """
    service = _Service(scorer, about, options)
    # The interactive documentation would fetch its scripts from elsewhere; /openapi.json is all that it shows.
    app = FastAPI(title="AD-DINOv3", docs_url=None, redoc_url=None, lifespan=service.lifespan)
    app.add_api_route("/", service.page, response_class=HTMLResponse, include_in_schema=False)
    app.add_api_route("/health", service.health)
    app.add_api_route("/predict", service.predict, methods=["POST"])
    for path, endpoint, kind in (
        ("/overlay", service.overlay, "image/jpeg"),
        ("/map", service.map, "image/tiff"),
        ("/mask", service.mask, "image/png"),
    ):
        described: dict[int | str, dict[str, object]] = {200: {"content": {kind: {}}}}
        app.add_api_route(path, endpoint, methods=["POST"], response_class=Response, responses=described)
    app.add_exception_handler(AdDinoError, _refusal)
    app.middleware("http")(service.guard)
    return app


class _Service:
    def __init__(self, scorer: Scorer, about: Mapping[str, object], options: ServeOptions) -> None:
        self._scorer = scorer
        self._about = about
        self._options = options
        self._batcher = Batcher(scorer, options.batch_size)
        self._in_hand = 0

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        yield
        self._batcher.close()

    async def guard(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Refuse an upload before it is read: of unknown size (411), too large (413), or one too many (503)."""
        if request.method != "POST":
            return await call_next(request)
        length, limit = request.headers.get("content-length", ""), self._options.upload_mb
        if not length.isdigit():
            return JSONResponse({"detail": "expected a request with a Content-Length"}, 411)
        if int(length) > limit * 2**20:
            return JSONResponse({"detail": f"{int(length):,} bytes are more than the limit of {limit} MiB"}, 413)
        if self._in_hand >= self._options.at_once:
            words = f"{self._in_hand} images are in hand, as many as may be; try again"
            return JSONResponse({"detail": words}, 503, {"Retry-After": "1"})
        self._in_hand += 1
        try:
            return await call_next(request)
        finally:
            self._in_hand -= 1

    def page(self) -> str:
        """The page for people."""
        script = Markup((_PAGE / "page.js").read_text(encoding="utf-8"))
        values = {"about": self._about, "threshold": self._options.threshold, "script": script}
        return render(_PAGE, "index.html.j2", values)

    def health(self) -> dict[str, object]:
        """What is being served."""
        return {"status": "ok", "threshold": self._options.threshold, **self._about}

    def predict(self, image: UploadFile, wish: Annotated[PredictWish, Query()]) -> dict[str, object]:
        """Score, decision and regions of an image, the region with the highest peak first."""
        pixels, prediction = self._judge(image, wish)
        found = prediction.summary()
        words = [describe_region(region, prediction.size, prediction.threshold) for region in prediction.regions]
        found["findings"] = words
        if wish.overlay:
            found["overlay"] = base64.b64encode(_saved(save_jpeg, prediction.overlay(pixels))).decode()
        return found

    def overlay(self, image: UploadFile, wish: Annotated[Wish, Query()]) -> Response:
        """The anomaly map drawn on the image, its regions outlined."""
        pixels, prediction = self._judge(image, wish)
        return Response(_saved(save_jpeg, prediction.overlay(pixels)), media_type="image/jpeg")

    def map(self, image: UploadFile, wish: Annotated[Wish, Query()]) -> Response:
        """The anomaly map at the image's own size."""
        _, prediction = self._judge(image, wish)
        return Response(_saved(save_map_tiff, prediction.anomaly_map), media_type="image/tiff")

    def mask(self, image: UploadFile, wish: Annotated[Wish, Query()]) -> Response:
        """Where the map reaches the threshold."""
        _, prediction = self._judge(image, wish)
        return Response(_saved(save_mask, prediction.mask()), media_type="image/png")

    def _judge(self, image: UploadFile, wish: Wish) -> tuple[NDArray[np.uint8], Prediction]:
        """The pixels (H, W, 3) of an upload, and what the model says of them."""
        name = image.filename or "image"
        pixels = decode_bytes(image.file.read(), Path(name))
        class_name = wish.class_name or self._options.class_name
        raw = self._batcher.score(self._scorer.prepare(pixels), class_name)
        threshold = self._options.threshold if wish.threshold is None else wish.threshold
        rule = DecisionRule(threshold, wish.min_area, wish.regions_on_normal)
        return pixels, conclude(raw, (pixels.shape[0], pixels.shape[1]), rule, name, class_name)


def _saved(save: Callable[[BinaryIO, T], None], content: T) -> bytes:
    buffer = io.BytesIO()
    save(buffer, content)
    return buffer.getvalue()


async def _refusal(request: Request, error: Exception) -> Response:
    is_theirs = isinstance(error, ImageError | ConfigError | ShapeError)
    return JSONResponse({"detail": str(error)}, 422 if is_theirs else 500)
