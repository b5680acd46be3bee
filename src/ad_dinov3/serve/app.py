"""The detector's HTTP interface: images come in; decisions, overlays, maps or masks go out.

    GET  /               a page to drop images on
    GET  /workbench/     the workbench on a folder, where there is one
    GET  /docs           all of this, to try out
    GET  /health         what is being served
    POST /predict        the decision and the regions of one image, as JSON
    POST /predict/batch  the same of several
    POST /overlay        the map drawn on the image, as JPEG
    POST /map            the anomaly map in [0, 1] at the image's size, as float32 TIFF
    POST /mask           255 where the map reaches the threshold, as PNG

Images are the files ``image`` of a multipart form, or one is the body. What is wrong with a request is told in its
answer's ``detail``.
"""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO

from anyio.to_thread import run_sync
from fastapi import Depends, FastAPI, Query, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from markupsafe import Markup
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import Field

from ad_dinov3 import __version__
from ad_dinov3.infer.decide import describe_region
from ad_dinov3.infer.image_files import save_jpeg, save_map_tiff, save_mask
from ad_dinov3.report.page import render
from ad_dinov3.serve.answers import (
    BatchAnswer,
    DriftAnswer,
    FailureAnswer,
    HealthAnswer,
    ModelAnswer,
    PredictionAnswer,
)
from ad_dinov3.serve.judge import Failed, Judge, Judged, Places, Wish
from ad_dinov3.serve.keys import WORKBENCH, Locked
from ad_dinov3.serve.limits import Limited, Limits
from ad_dinov3.serve.metrics import Metrics
from ad_dinov3.serve.models import Models
from ad_dinov3.serve.normals import NormalImages
from ad_dinov3.serve.normals_routes import normals_router
from ad_dinov3.serve.observed import Observed
from ad_dinov3.serve.refusals import REFUSALS, described, tell_refusals
from ad_dinov3.serve.uploads import Upload, body_schema, one_upload, several_uploads
from ad_dinov3.serve.v2 import v2_router
from ad_dinov3.serve.workbench.app import unguarded_workbench
from ad_dinov3.serve.workbench.bench import Bench

_PAGE = Path(__file__).parent / "page"


@dataclass(frozen=True)
class ServeOptions:
    """What holds for every request.

    Attributes:
        class_name: what images show, where a request does not say.
        at_once: most images in hand; more are refused with 503.
        upload_mb: largest request, in MiB; larger ones are refused with 413.
        keys: of those who may ask; empty: everyone may.
        log_line: takes a line of JSON for each request; None: there is no log.
        normals: the folder of normal images that the models compare with, if there is one.
        memory_mb: what the images in hand may take together, from decoding to answers, in MiB, and uploads that wait as
            much again; an image that takes more alone is refused with 422, one for which there is no room with 503.
        hosts: names by which the service may be called, beside localhost and addresses; others are refused with 400.
        body_s: within how many seconds a body must have come; slower ones are refused with 408.
        workbench: the folder that people look through beside the service, if there is one.
    """

    class_name: str = "object"
    at_once: int = 16
    upload_mb: int = 64
    keys: tuple[str, ...] = ()
    log_line: Callable[[str], None] | None = None
    normals: Path | None = None
    memory_mb: int = 1000
    hosts: tuple[str, ...] = ()
    body_s: float = 30.0
    workbench: Bench | None = None

    @property
    def limits(self) -> Limits:
        """What a request may cost before a place is taken."""
        return Limits(self.upload_mb, self.memory_mb, self.body_s, self.hosts)


class PredictWish(Wish):
    """The same, for an answer in JSON."""

    overlay: bool = Field(False, description="add the overlay, a JPEG in base64")


def create_app(models: Models, options: ServeOptions, metrics: Metrics) -> FastAPI:
    """The service as an ASGI application; it closes the models when it ends."""
    service = _Service(models, options, metrics)
    asks_for_key = [Depends(HTTPBearer(auto_error=False))] if options.keys else []  # so that /docs can send one
    app = FastAPIOffline(
        title="AD-DINOv3", version=__version__, redoc_url=None, lifespan=service.lifespan, dependencies=asks_for_key
    )
    app.add_api_route("/", service.page, response_class=HTMLResponse, include_in_schema=False)
    app.add_api_route("/health", service.health)
    app.add_api_route("/metrics", service.metrics, response_class=PlainTextResponse)
    refusals = described(REFUSALS)
    for path, endpoint, is_single in (("/predict", service.predict, True), ("/predict/batch", service.batch, False)):
        app.add_api_route(
            path, endpoint, methods=["POST"], responses=refusals, openapi_extra=body_schema(at_most_one=is_single)
        )
    for path, picture, kind in (
        ("/overlay", service.overlay, "image/jpeg"),
        ("/map", service.map, "image/tiff"),
        ("/mask", service.mask, "image/png"),
    ):
        app.add_api_route(
            path,
            picture,
            methods=["POST"],
            response_class=Response,
            responses={200: {"content": {kind: {}}}, **refusals},
            openapi_extra=body_schema(at_most_one=True),
        )
    if options.normals is not None:
        normals = NormalImages(options.normals, options.class_name, models)
        app.include_router(normals_router(normals, may_change=bool(options.keys)))
    app.include_router(v2_router(service.judge, options.upload_mb * 2**20))
    if options.workbench is not None:
        app.mount(WORKBENCH, unguarded_workbench(options.workbench, asks_for_key=bool(options.keys)))
    tell_refusals(app)
    app.add_middleware(Limited, limits=options.limits)
    if options.keys:
        app.add_middleware(Locked, keys=options.keys)
    app.add_middleware(Observed, metrics=metrics, log_line=options.log_line)
    return app


class _Service:
    def __init__(self, models: Models, options: ServeOptions, metrics: Metrics) -> None:
        self._models = models
        self._options = options
        self._metrics = metrics
        self.judge = Judge(
            models, options.class_name, Places(options.at_once, options.memory_mb * 2**20), metrics.judged
        )
        metrics.watch(self.judge)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        yield
        self._models.close()
        if self._options.workbench is not None:
            self._options.workbench.close()

    async def page(self) -> str:
        """The page for people."""
        script = Markup((_PAGE / "page.js").read_text(encoding="utf-8"))
        first = _model_answer(self._models, self._models.names[0])
        about = {"model": first.name, "method": first.method, "fingerprint": first.fingerprint}
        values = {"about": about, "threshold": first.threshold, "models": self._models.names}
        values |= {"script": script, "asks_for_key": bool(self._options.keys)}
        return render(_PAGE, "index.html.j2", values)

    async def health(self) -> HealthAnswer:
        """What is being served."""
        models = tuple(_model_answer(self._models, name) for name in self._models.names)
        return HealthAnswer(version=__version__, models=models)

    async def metrics(self) -> Response:
        """Counts and durations for Prometheus."""
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def predict(
        self, image: Annotated[Upload, Depends(one_upload)], wish: Annotated[PredictWish, Query()]
    ) -> PredictionAnswer:
        """Score, decision and regions of an image, the region with the highest peak first."""
        return await run_sync(lambda: _prediction_answer(self.judge.judge(image, wish), wish.overlay))

    async def batch(
        self, images: Annotated[list[Upload], Depends(several_uploads)], wish: Annotated[PredictWish, Query()]
    ) -> BatchAnswer:
        """One result for each image, in the order in which they came; one that fails does not end the others."""
        return await run_sync(self._batch, images, wish)

    def _batch(self, images: list[Upload], wish: PredictWish) -> BatchAnswer:
        results = tuple(
            FailureAnswer(image=one.name, error=one.reason)
            if isinstance(one, Failed)
            else _prediction_answer(one, wish.overlay)
            for one in self.judge.judge_all(images, wish)
        )
        decisions = [one.decision for one in results if isinstance(one, PredictionAnswer)]
        return BatchAnswer(
            results=results,
            anomalous=decisions.count("anomalous"),
            normal=decisions.count("normal"),
            failed=len(results) - len(decisions),
        )

    async def overlay(self, image: Annotated[Upload, Depends(one_upload)], wish: Annotated[Wish, Query()]) -> Response:
        """The anomaly map drawn on the image, its regions outlined."""
        return await self._picture(image, wish, _overlay, "image/jpeg")

    async def map(self, image: Annotated[Upload, Depends(one_upload)], wish: Annotated[Wish, Query()]) -> Response:
        """The anomaly map at the image's own size."""
        return await self._picture(image, wish, _map, "image/tiff")

    async def mask(self, image: Annotated[Upload, Depends(one_upload)], wish: Annotated[Wish, Query()]) -> Response:
        """Where the map reaches the threshold."""
        return await self._picture(image, wish, _mask, "image/png")

    async def _picture(self, image: Upload, wish: Wish, draw: Callable[[Judged], bytes], kind: str) -> Response:
        return Response(await run_sync(lambda: draw(self.judge.judge(image, wish))), media_type=kind)


def _model_answer(models: Models, name: str) -> ModelAnswer:
    model = models.model(name)
    return ModelAnswer(
        name=name,
        source=model.source,
        method=model.method,
        fingerprint=model.fingerprint,
        threshold=model.threshold,
        normal_classes=model.normal_classes,
        promises=dict(model.promises),
        drift=None if model.drift is None else DriftAnswer(**asdict(model.drift.drift)),
    )


def _prediction_answer(judged: Judged, with_overlay: bool) -> PredictionAnswer:
    prediction = judged.prediction
    words = [describe_region(region, prediction.size, prediction.threshold) for region in prediction.regions]
    return PredictionAnswer(
        **vars(prediction.record()),
        model=judged.model,
        reduction=judged.image.reduction,
        findings=tuple(words),
        overlay=base64.b64encode(_overlay(judged)).decode() if with_overlay else None,
    )


def _overlay(judged: Judged) -> bytes:
    return _saved(partial(save_jpeg, picture=judged.prediction.overlay(judged.image.pixels)))


def _map(judged: Judged) -> bytes:
    return _saved(partial(save_map_tiff, anomaly_map=judged.prediction.anomaly_map))


def _mask(judged: Judged) -> bytes:
    return _saved(partial(save_mask, mask=judged.prediction.mask()))


def _saved(save: Callable[[BinaryIO], None]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()
