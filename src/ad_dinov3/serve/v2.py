"""The service below /v2 as KServe, Triton and OpenVINO Model Server speak it: the Open Inference Protocol."""

from __future__ import annotations

from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from ad_dinov3 import __version__
from ad_dinov3.errors import ConfigError
from ad_dinov3.serve import inference_protocol as protocol
from ad_dinov3.serve.judge import Failed, Judge
from ad_dinov3.serve.models import UnknownModelError

_PLATFORM = "ad_dinov3"


class ServerMetadata(BaseModel):
    """The server, and what it can beyond the protocol."""

    name: str = "ad-dinov3"
    version: str = __version__
    extensions: tuple[str, ...] = ("binary_tensor_data", "model_repository")


class Live(BaseModel):
    """Whether the process answers."""

    live: bool = True


class Ready(BaseModel):
    """Whether all models answer."""

    ready: bool = True


class ModelReady(BaseModel):
    """Whether a model answers."""

    name: str
    ready: bool = True


class TensorMetadata(BaseModel):
    """An input or output; -1 stands for any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(BaseModel):
    """A model's inputs, of which a request has one, and outputs."""

    name: str
    versions: tuple[str, ...] = ("1",)
    platform: str = _PLATFORM
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class RepositoryEntry(BaseModel):
    """A model as Triton's repository extension lists it."""

    name: str
    version: str = "1"
    state: str = "READY"
    reason: str = ""


class ErrorAnswerV2(BaseModel):
    """Why a request has no other answer."""

    error: str


_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswerV2, "description": "the request is not what the protocol or the model takes"},
    404: {"model": ErrorAnswerV2, "description": "there is no such model"},
    503: {"model": ErrorAnswerV2, "description": "as many images are in hand as may be"},
}
_INFER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": protocol.REQUEST_SCHEMA},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def v2_router(judge: Judge, max_bytes: int) -> APIRouter:
    """The routes below /v2, and the probes that others call /healthz and /readyz.

    Args:
        judge: decides on the images.
        max_bytes: most bytes of a request when it is unpacked.
    """
    endpoints = _Endpoints(judge, max_bytes)
    router = APIRouter(tags=["Open Inference Protocol"])
    router.add_api_route("/v2", endpoints.metadata)
    for live, ready in (("/v2/health/live", "/v2/health/ready"), ("/healthz", "/readyz")):
        router.add_api_route(live, endpoints.live)
        router.add_api_route(ready, endpoints.ready, responses={503: {"model": Ready}})
    for where in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        router.add_api_route(where, endpoints.model_metadata, responses={404: _REFUSALS[404]})
        router.add_api_route(f"{where}/ready", endpoints.model_ready, responses={404: _REFUSALS[404]})
        router.add_api_route(
            f"{where}/infer",
            endpoints.infer,
            methods=["POST"],
            response_class=Response,
            responses={200: {"model": protocol.InferAnswer, "content": {"application/octet-stream": {}}}, **_REFUSALS},
            openapi_extra=_INFER_BODY,
        )
    router.add_api_route("/v2/repository/index", endpoints.index, methods=["POST"])
    return router


async def _model_name(model: str, version: str = "1") -> str:
    """The model of an address, whose only version is 1."""
    if version != "1":
        raise UnknownModelError(f"there is no version {version!r} of {model}; there is 1")
    return model


class _Endpoints:
    def __init__(self, judge: Judge, max_bytes: int) -> None:
        self._judge = judge
        self._max_bytes = max_bytes

    async def metadata(self) -> ServerMetadata:
        """The server and its extensions."""
        return ServerMetadata()

    async def live(self) -> Live:
        """Whether the process answers."""
        return Live()

    async def ready(self, response: Response) -> Ready:
        """Whether all models answer: not any more from the moment that the service ends."""
        is_open = self._judge.models.is_open
        response.status_code = 200 if is_open else 503
        return Ready(ready=is_open)

    async def model_ready(self, model: Annotated[str, Depends(_model_name)]) -> ModelReady:
        """Whether a model answers."""
        self._judge.models.model(model)
        return ModelReady(name=model)

    async def model_metadata(self, model: Annotated[str, Depends(_model_name)]) -> ModelMetadata:
        """What a model takes and gives."""
        self._judge.models.model(model)
        inputs, outputs = (
            tuple(TensorMetadata.model_validate(tensor) for tensor in tensors)
            for tensors in (protocol.INPUTS, protocol.OUTPUTS)
        )
        return ModelMetadata(name=model, inputs=inputs, outputs=outputs)

    async def index(self) -> list[RepositoryEntry]:
        """The models that are served."""
        return [RepositoryEntry(name=name) for name in self._judge.models.names]

    async def infer(self, request: Request, model: Annotated[str, Depends(_model_name)]) -> Response:
        """Scores, decisions, maps and regions of images."""
        self._judge.models.model(model)
        body = await request.body()
        encoding = request.headers.get("content-encoding", "")
        length = request.headers.get(protocol.HEADER)
        content, head_bytes = await run_sync(self._inferred, body, encoding, length, model)
        if head_bytes is None:
            return Response(content, media_type="application/json")
        return Response(content, headers={protocol.HEADER: str(head_bytes)}, media_type="application/octet-stream")

    def _inferred(self, body: bytes, encoding: str, length: str | None, model: str) -> tuple[bytes, int | None]:
        inference = protocol.read_inference(protocol.inflated(body, encoding, self._max_bytes), length, model)
        at_most, count = self._judge.places.at_most, len(inference.uploads)
        if "anomaly_map" in inference.outputs and count > at_most:
            raise ConfigError(f"expected at most {at_most} images where maps are asked for, got {count}")
        values: dict[str, list[object]] = {name: [] for name in inference.outputs}
        for judged in self._judge.judge_all(inference.uploads, inference.wish):
            if isinstance(judged, Failed):
                raise ConfigError(f"{judged.name}: {judged.reason}")
            for name, column in values.items():
                column.append(protocol.value_of(name, judged))
        return protocol.write_answer(inference, model, values)
