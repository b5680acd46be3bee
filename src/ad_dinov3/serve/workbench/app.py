"""The workbench as an application: its page, what the page asks for, and what it changes.

    GET  /                 the page
    GET  /bench/images     all images with scores; /bench/photo, /thumbnail and /map of one of them, by its name
    GET  /bench/patch      how alike the patches of an image are to that at a point, and the nearest one of a good image
    GET  /bench/words      the states of normal and abnormal parts that the model's own prompts name
    GET  /bench/state      reviews and settings, if they are not those of ?since=REVISION&scored=SCORING
    POST /bench/review, /bench/undo, /bench/threshold, /bench/areas, /bench/export
    POST /bench/try        what other states would make of one image: its map, and its score in X-Score
    POST /bench/words      which states prompts name; all images are then scored again, in the background
    POST /bench/drop       images to keep with the folder, and to score
    POST /bench/good       which images are good; all are then scored again, in the background

The limits, keys and headers are those of the service.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from markupsafe import Markup
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from ad_dinov3.report.overlay import COOL, WARM, colour_table
from ad_dinov3.report.page import render
from ad_dinov3.serve.keys import Locked
from ad_dinov3.serve.limits import Limited, Limits
from ad_dinov3.serve.refusals import tell_refusals
from ad_dinov3.serve.uploads import Upload, several_uploads
from ad_dinov3.serve.workbench.answers import (
    AreasRequest,
    DropAnswer,
    ExportAnswer,
    GoodRequest,
    ImagesAnswer,
    PatchAnswer,
    ReviewRequest,
    StateAnswer,
    StatesAnswer,
    TakeBackRequest,
    ThresholdRequest,
    TrialRequest,
    UnchangedAnswer,
    WordsRequest,
)
from ad_dinov3.serve.workbench.bench import Bench
from ad_dinov3.serve.workbench.folder import Picture
from ad_dinov3.serve.workbench.teaching import MOST_GOOD

Share = Annotated[float, Query(ge=0, le=1)]
_PAGE = Path(__file__).parent / "page"
_PARTS = ("server", "regions", "viewer", "list", "areas", "good", "patches", "words", "drop", "bench")


def create_workbench(bench: Bench, limits: Limits, keys: tuple[str, ...] = ()) -> FastAPI:
    """The workbench as an ASGI application; it closes the bench when it ends.

    Args:
        bench: what is shown.
        limits: what requests may cost.
        keys: of those who may ask; empty: everyone may.
    """

    app = unguarded_workbench(bench, asks_for_key=bool(keys))
    app.add_middleware(Limited, limits=limits)
    if keys:
        app.add_middleware(Locked, keys=keys)
    return app


def unguarded_workbench(bench: Bench, *, asks_for_key: bool) -> FastAPI:
    """The same without limits and keys, for an application that has its own and holds this one below a path.

    Args:
        bench: what is shown; whoever runs the lifespan of this application closes it.
        asks_for_key: the page asks people for a key.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        bench.close()

    app = FastAPI(title="AD-DINOv3 workbench", openapi_url=None, lifespan=lifespan)
    routes = _Routes(bench, asks_for_key=asks_for_key)
    app.add_api_route("/", routes.page, response_class=HTMLResponse)
    app.include_router(_router(routes))
    tell_refusals(app)
    return app


def _router(routes: _Routes) -> APIRouter:
    router = APIRouter(prefix="/bench", dependencies=[Depends(_from_here)])
    for path, answer in (
        ("/images", routes.images),
        ("/state", routes.state),
        ("/photo", routes.photo),
        ("/thumbnail", routes.thumbnail),
        ("/map", routes.map),
        ("/patch", routes.patch),
        ("/words", routes.own_words),
    ):
        router.add_api_route(path, answer)
    for path, change in (
        ("/review", routes.review),
        ("/undo", routes.undo),
        ("/threshold", routes.threshold),
        ("/areas", routes.areas),
        ("/export", routes.export),
        ("/good", routes.good),
        ("/words", routes.words),
        ("/try", routes.try_words),
        ("/drop", routes.drop),
    ):
        router.add_api_route(path, change, methods=["POST"])
    return router


def _from_here(request: Request) -> None:
    """Refuse what a page from elsewhere makes a browser send.

    Raises:
        HTTPException: 403.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise HTTPException(403, f"{origin} is another page than the workbench's")


class _Routes:
    """Plain functions, which the server calls in threads of its own."""

    def __init__(self, bench: Bench, *, asks_for_key: bool) -> None:
        self._bench = bench
        self._asks_for_key = asks_for_key

    def page(self) -> str:
        scripts = "\n".join((_PAGE / f"{name}.js").read_text(encoding="utf-8") for name in _PARTS)
        values = {
            "scores": self._bench.model is not None,
            "has_states": self._bench.model is not None and self._bench.model.abilities.has_states,
            "no_tokens": "" if self._bench.model is None else self._bench.model.abilities.no_tokens,
            "most_good": MOST_GOOD,
            "title": self._bench.title if not self._asks_for_key else "workbench",  # the page itself needs no key
            "asks_for_key": self._asks_for_key,
            "look": Markup((_PAGE / "workbench.css").read_text(encoding="utf-8")),
            "script": Markup(scripts),
            "data": {"cool": colour_table(COOL).tolist(), "warm": colour_table(WARM).tolist()},
        }
        return render(_PAGE, "index.html.j2", values)

    def images(self) -> ImagesAnswer:
        return self._bench.images()

    def state(self, since: int | None = None, scored: int | None = None) -> StateAnswer | UnchangedAnswer:
        if since is not None and (since, scored) == (self._bench.store.revision, self._bench.scored):
            return UnchangedAnswer(revision=since, work=self._bench.work())
        return self._bench.state()

    def photo(self, image: str) -> Response:
        return _response(self._bench.results.photo(image))

    def thumbnail(self, image: str, with_map: bool = True) -> Response:
        return _response(self._bench.results.thumbnail(image, with_map))

    def map(self, image: str, before: bool = False) -> Response:
        """Height and width as uint32, then the map row by row as uint16 of 65535ths, all little-endian."""
        results = self._bench.before if before else self._bench.results
        return _map_answer(results.map(image))

    def patch(self, image: str, x: Share, y: Share) -> PatchAnswer:
        return self._bench.patch(image, x, y)

    def review(self, asked: ReviewRequest) -> StateAnswer:
        self._bench.results.row(asked.image)
        self._bench.store.add_review(asked.id, asked.image, asked.verdict)
        return self._bench.state()

    def undo(self, asked: TakeBackRequest) -> StateAnswer:
        self._bench.store.take_back(asked.id)
        return self._bench.state()

    def threshold(self, asked: ThresholdRequest) -> StateAnswer:
        self._bench.store.set("threshold", asked.threshold)
        return self._bench.state()

    def areas(self, asked: AreasRequest) -> StateAnswer:
        self._bench.set_areas(asked.areas)
        return self._bench.state()

    def good(self, asked: GoodRequest) -> StateAnswer:
        self._bench.use_as_good(asked.images, asked.is_good)
        return self._bench.state()

    def own_words(self) -> StatesAnswer | None:
        states = self._bench.own_states()
        return None if states is None else StatesAnswer(**states.model_dump())

    def words(self, asked: WordsRequest) -> StateAnswer:
        self._bench.use_states(asked.states)
        return self._bench.state()

    def try_words(self, asked: TrialRequest) -> Response:
        tried = self._bench.try_states(asked.image, asked.states)
        answer = _map_answer(tried.map)
        answer.headers["X-Score"] = repr(tried.score)
        return answer

    async def drop(self, images: Annotated[list[Upload], Depends(several_uploads)]) -> DropAnswer:
        files = [(image.name, image.content) for image in images if isinstance(image.content, bytes)]
        return DropAnswer(images=await run_sync(self._bench.add, files))

    def export(self) -> ExportAnswer:
        folder, images = self._bench.export()
        return ExportAnswer(folder=str(folder), images=images)


def _map_answer(values: NDArray[np.float32]) -> Response:
    levels = np.rint(values * np.float32(65535)).astype("<u2")
    return Response(np.array(values.shape, "<u4").tobytes() + levels.tobytes(), media_type="application/octet-stream")


def _response(picture: Picture) -> Response:
    headers = {"Cache-Control": "private, max-age=60"}
    if isinstance(picture.content, Path):
        return FileResponse(picture.content, media_type=picture.kind, headers=headers)
    return Response(picture.content, media_type=picture.kind, headers=headers)
