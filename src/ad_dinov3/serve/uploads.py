"""The images of a request: files of a multipart form, or the body itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from ad_dinov3.data.decode import DecodedImage, decode_within, image_header
from ad_dinov3.data.header import header_of
from ad_dinov3.errors import ImageError

FIELD = "image"
_FILE: dict[str, object] = {"type": "string", "format": "binary"}


@dataclass(frozen=True, eq=False)
class Upload:
    """An image as it came.

    Attributes:
        name: what answers and errors call it.
        content: a file's bytes, or pixels (H, W, 3) uint8 RGB.
    """

    name: str
    content: bytes | NDArray[np.uint8]

    def bytes_in_hand(self, at_most: int) -> int:
        """What it takes from decoding to its answer, reduced where that is more than may be; 0 for a broken header."""
        if not isinstance(self.content, bytes):
            return header_of(self.content).bytes_in_hand
        try:
            return image_header(Path(self.name), self.content).within(at_most).bytes_in_hand
        except ImageError:  # decoding says it, too
            return 0

    def decoded(self, at_most: int) -> DecodedImage:
        """The image, reduced where the whole would take more bytes than may be until its answer.

        Raises:
            ImageError: the bytes are no image, or one that takes more even reduced.
        """
        if isinstance(self.content, bytes):
            return decode_within(Path(self.name), at_most, self.content)
        return DecodedImage(self.content, 1)


async def one_upload(request: Request) -> Upload:
    """The image of a request that has one.

    Raises:
        HTTPException: 415 the body is neither a form nor an image; 422 there is no image, or more than one.
    """
    uploads = await several_uploads(request)
    if len(uploads) > 1:
        raise HTTPException(422, f"expected one {FIELD}, got {len(uploads)}; send several to /predict/batch")
    return uploads[0]


async def several_uploads(request: Request) -> list[Upload]:
    """The images of a request, in their order.

    Raises:
        HTTPException: 415 the body is neither a form nor an image; 422 there is no image.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _of_form(request)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return [Upload(FIELD, await request.body())]
    raise HTTPException(415, f"expected multipart/form-data or image/*, got {kind or 'no Content-Type'}")


def body_schema(at_most_one: bool) -> dict[str, object]:
    """What `one_upload` or `several_uploads` takes, for OpenAPI."""
    field = _FILE if at_most_one else {"type": "array", "items": _FILE, "minItems": 1}
    form = {"type": "object", "required": [FIELD], "properties": {FIELD: field}, "additionalProperties": False}
    content = {"multipart/form-data": {"schema": form}, "image/*": {"schema": _FILE}}
    return {"requestBody": {"required": True, "content": content}}


async def _of_form(request: Request) -> list[Upload]:
    async with request.form() as form:
        fields = form.multi_items()
        unknown = sorted({name for name, _ in fields} - {FIELD})
        if unknown:
            raise HTTPException(422, f"expected files named {FIELD} in the form, got {', '.join(unknown)}, too")
        files = [value for _, value in fields if isinstance(value, UploadFile)]
        if not files or len(files) < len(fields):
            raise HTTPException(422, f"expected a file named {FIELD} in the form, with a file name")
        return [Upload(file.filename or FIELD, await file.read()) for file in files]
