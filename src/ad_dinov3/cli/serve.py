"""ad-dinov3 serve: answer requests over HTTP."""

from __future__ import annotations

import socket
from typing import Annotated

import typer
from rich.console import Console

from ad_dinov3.cli.options import (
    AnyDevice,
    AnyModel,
    KeepAspect,
    Method,
    Normals,
    Offline,
    Overlap,
    Tile,
    Weights,
    command_app,
)
from ad_dinov3.errors import ConfigError, MissingExtraError

app = command_app()


@app.command()
def serve(
    model: AnyModel = "embedded",
    method: Method = None,
    weights: Weights = None,
    normals: Normals = None,
    class_name: Annotated[str, typer.Option(help="what images show where a request does not say")] = "object",
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="where a request names none; default: the model's own")
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 for all of this machine's")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8000,
    batch_size: Annotated[int, typer.Option(min=1, help="most images per call of the model")] = 8,
    at_once: Annotated[int, typer.Option(min=1, help="most images in hand; more are refused with 503")] = 16,
    upload_mb: Annotated[int, typer.Option(min=1, help="largest request in MiB; more is refused with 413")] = 64,
    device: AnyDevice = "cpu",
    tile: Tile = None,
    overlap: Overlap = 0.25,
    keep_aspect: KeepAspect = False,
    offline: Offline = False,
) -> None:
    """Answer requests over HTTP: an image comes in, the decision, the overlay, the map or the mask goes out.

    curl -F image=@part.jpg http://127.0.0.1:8000/predict

    The address itself shows a page to drop images on. There is no password: listen beyond this machine only behind
    something that asks for one.
    """
    from ad_dinov3.data.normals import find_normals
    from ad_dinov3.infer.opening import View, check_method, load, look_through, method_title

    console = Console()
    check_method(method)
    try:
        import uvicorn

        from ad_dinov3.serve.app import ServeOptions, create_app
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "fastapi", "serve") from None
    found = find_normals(normals, [class_name]) if normals else {}
    listening = _listen(host, port)
    with console.status("loading the model"):
        detector = load(model, method=method, weights=weights, device=device, offline=offline)
        for name, paths in found.items():
            detector.remember(paths, name)
        viewed = look_through(detector, View(tile, overlap, keep_aspect))
    about = {"model": model, "method": method_title(detector), "fingerprint": viewed.fingerprint}
    level = detector.config.threshold if threshold is None else threshold
    options = ServeOptions(level, class_name, batch_size, at_once, upload_mb)
    address, port = listening.getsockname()[:2]
    console.print(f"serving {model} at http://{address}:{port}, threshold {level:.3f}; Ctrl-C stops", highlight=False)
    config = uvicorn.Config(create_app(viewed.scorer, about, options), log_level="warning")
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """A socket at the address, before the model is loaded for nothing."""
    try:
        listening = socket.create_server((host, port))
        # Answers leave at once; asyncio sees to that only on sockets that name their protocol, and 40 ms are lost.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port} ({error.strerror or error}); take another --port") from None
