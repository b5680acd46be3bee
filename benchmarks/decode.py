"""A 12-megapixel JPEG to a (3, 512, 512) input: ways beside each other in one run, ratios to Pillow + numpy.

    python benchmarks/decode.py [--repeats 7] [JPEG ...]

Without files a photograph-like picture is made (smooth shapes, sensor noise). Ways whose package is missing are left
out. Times are CPU milliseconds of one thread, the median of interleaved rounds; differences are grey levels against
Pillow's bicubic filter.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.transforms import resize_image

SIZE = (512, 512)
Way = Callable[[Path], NDArray[np.uint8]]


def pillow_numpy(path: Path) -> NDArray[np.uint8]:
    """The reference: decode, resize and convert with Pillow, transpose with numpy."""
    image = Image.open(path).convert("RGB").resize(SIZE[::-1], Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def shipped(path: Path) -> NDArray[np.uint8]:
    """What the package does today: the whole image as an array (overlays need it), then Pillow's filter."""
    return resize_image(decode_image(path), SIZE, "bicubic")


def shipped_torch(path: Path) -> NDArray[np.uint8]:
    """The package's decoder, then torch's antialiased uint8 filter."""
    return torch_resize(decode_image(path))


def draft(path: Path) -> NDArray[np.uint8]:
    """Pillow's draft mode (DCT scaling) to at least twice the size, then its filter."""
    image = Image.open(path)
    image.draft("RGB", (2 * SIZE[1], 2 * SIZE[0]))
    small = image.convert("RGB").resize(SIZE[::-1], Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def simplejpeg_torch(path: Path) -> NDArray[np.uint8]:
    """libjpeg-turbo straight into an array, then torch's antialiased uint8 filter."""
    import simplejpeg

    return torch_resize(simplejpeg.decode_jpeg(path.read_bytes(), "RGB"))


def opencv_torch(path: Path) -> NDArray[np.uint8]:
    """OpenCV's decoder, then torch's antialiased uint8 filter."""
    import cv2

    return torch_resize(np.ascontiguousarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)))


def imagecodecs_torch(path: Path) -> NDArray[np.uint8]:
    """The libjpeg-turbo of imagecodecs, then torch's antialiased uint8 filter."""
    import imagecodecs

    return torch_resize(imagecodecs.jpeg8_decode(path.read_bytes(), outcolorspace="RGB"))


def torch_resize(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) -> (3, 512, 512) uint8; the strides of (H, W, 3) are torch's fast channels-last layout."""
    import torch

    torch.set_num_threads(1)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(batch, SIZE, mode="bicubic", antialias=True)
    return small[0].contiguous().numpy()


WAYS: dict[str, tuple[Way, tuple[str, ...]]] = {
    "Pillow + numpy": (pillow_numpy, ()),
    "decode_image + resize_image": (shipped, ()),
    "decode_image + torch uint8": (shipped_torch, ("torch",)),
    "Pillow draft x2": (draft, ()),
    "simplejpeg + torch uint8": (simplejpeg_torch, ("simplejpeg", "torch")),
    "OpenCV + torch uint8": (opencv_torch, ("cv2", "torch")),
    "imagecodecs + torch uint8": (imagecodecs_torch, ("imagecodecs", "torch")),
}


def made_picture() -> bytes:
    """A 4000 x 3000 JPEG (quality 90) with gradients, edges, fine texture and sensor noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:3000, :4000].astype(np.float32) / 4000
    waves = np.stack([np.sin(k * (9 * x + 5 * y) + 3 * np.sin((7 + k) * y)) for k in (3, 5, 8)], axis=2)
    edges = np.sign(np.sin(90 * x) * np.sin(70 * y))[..., None] * 25
    texture = np.repeat(np.repeat(rng.normal(0, 12, (1500, 2000, 1)), 2, axis=0), 2, axis=1)
    noise = rng.normal(0, 4, (3000, 4000, 3))
    pixels = np.clip(128 + 55 * waves + edges + texture + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def measure(path: Path, repeats: int) -> None:
    """Print one row per way for one file."""
    ways = {
        name: way for name, (way, needs) in WAYS.items() if all(importlib.util.find_spec(package) for package in needs)
    }
    reference = pillow_numpy(path).astype(int)
    errors = {name: np.abs(way(path).astype(int) - reference) for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            way(path)
            times[name].append((time.process_time() - start) * 1e3)
    base = statistics.median(times["Pillow + numpy"])
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    print(f"  {'way':30} {'ms':>7} {'speed':>7} {'mean diff':>10} {'largest':>8}")
    for name, row in times.items():
        ms = statistics.median(row)
        print(f"  {name:30} {ms:7.1f} {base / ms:6.2f}x {errors[name].mean():10.4f} {errors[name].max():8d}")


def main() -> None:
    """Measure the files named, or the made picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        made = Path(folder) / "made-12mp.jpg"
        if not arguments.files:
            made.write_bytes(made_picture())
        for path in arguments.files or [made]:
            measure(path, arguments.repeats)


if __name__ == "__main__":
    main()
