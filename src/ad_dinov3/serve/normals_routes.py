"""/normals: which normal images the models compare with, and one more or less of them."""

from __future__ import annotations

from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends
from starlette.exceptions import HTTPException

from ad_dinov3.serve.answers import NormalsAnswer
from ad_dinov3.serve.normals import NormalImages
from ad_dinov3.serve.refusals import REFUSALS, described
from ad_dinov3.serve.uploads import Upload, body_schema, several_uploads

_FORBIDDEN = {403: "the service has no keys, and only who has one may change what models compare with"}


def normals_router(normals: NormalImages, *, may_change: bool) -> APIRouter:
    """The routes of a service whose models compare with normal images.

    Args:
        normals: the images.
        may_change: the service asks for keys, so that those who can be asked may add and remove.
    """
    endpoints = _Endpoints(normals, may_change)
    router = APIRouter(prefix="/normals", tags=["Normal images"])
    refusals = described(REFUSALS | _FORBIDDEN)
    router.add_api_route("", endpoints.listed)
    router.add_api_route(
        "", endpoints.add, methods=["POST"], responses=refusals, openapi_extra=body_schema(at_most_one=False)
    )
    router.add_api_route("/{name:path}", endpoints.remove, methods=["DELETE"], responses=refusals)
    return router


class _Endpoints:
    def __init__(self, normals: NormalImages, may_change: bool) -> None:
        self._normals = normals
        self._may_change = may_change

    async def listed(self) -> NormalsAnswer:
        """The normal images that all models compare with, and what is promised with them."""
        return await run_sync(self._answer)

    async def add(self, images: Annotated[list[Upload], Depends(several_uploads)]) -> NormalsAnswer:
        """Keep images of good parts; every model compares with them from now on."""
        self._check()
        files = [(image.name, image.content) for image in images if isinstance(image.content, bytes)]
        await run_sync(self._normals.add, files)
        return await run_sync(self._answer)

    async def remove(self, name: str) -> NormalsAnswer:
        """Forget an image, as it is called in the list."""
        self._check()
        await run_sync(self._normals.remove, name)
        return await run_sync(self._answer)

    def _check(self) -> None:
        if not self._may_change:
            raise HTTPException(403, f"{_FORBIDDEN[403]}; start it with --keys FILE")

    def _answer(self) -> NormalsAnswer:
        models, class_name = self._normals.models, self._normals.class_name
        told = {name: models.model(name).promises for name in models.names}
        promises = {name: words[class_name] for name, words in told.items() if class_name in words}
        return NormalsAnswer(class_name=class_name, images=tuple(self._normals.names()), promises=promises)
