"""anomalib beside this package, in one run on one machine: folders, networks, metrics, imports and what is installed.

    python benchmarks/peers.py FOLDER --peer PEER/bin/python [--images 32] [--rounds 3]

PEER is a virtual environment with anomalib 2.7, open_clip_torch and timm. Each part is a process of its own with one
thread; the two packages take turns, processor seconds are the least of the rounds. Images are FOLDER's first JPEGs,
inputs 256 x 256 px (WinCLIP's 240), weights random but for our embedded model's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from importlib import metadata
from pathlib import Path

_SIDE_PX, _WINCLIP_PX, _BANK, _MAPS = 256, 240, 1638, 16
_NORMALS = 4
_OURS = (
    "torch transformers numpy scipy pillow tifffile safetensors huggingface_hub typer rich pydantic jinja2"  # pyproject
)


def with_operators() -> object:
    """Declare two operators of torchvision, so that its PyPI build is imported beside a torch for processors alone."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def peer_import(folder: Path, count: int) -> float:
    """From the interpreter's start to what fits, predicts and measures."""
    kept = with_operators()
    from anomalib.engine import Engine
    from anomalib.models import Patchcore, WinClip

    del kept, Engine, Patchcore, WinClip
    return time.process_time()


def our_import(folder: Path, count: int) -> float:
    """From the interpreter's start to what opens models, predicts and trains."""
    from ad_dinov3 import Detector, evaluate, train

    del Detector, evaluate, train
    return time.process_time()


def peer_folder(folder: Path, count: int) -> float:
    """Engine.predict of PatchCore, a wide ResNet-50 and a memory bank, over a folder; pictures are written."""
    kept = with_operators()
    import torch
    from anomalib.engine import Engine
    from anomalib.models import Patchcore

    model = Patchcore(pre_trained=False)
    model.model.memory_bank = torch.randn(_BANK, 1536)
    with tempfile.TemporaryDirectory() as out:
        engine = Engine(default_root_dir=out, logger=False, accelerator="cpu", devices=1)
        started = time.process_time()
        engine.predict(model=model, data_path=folder)
        seconds = time.process_time() - started
        if not list(Path(out).rglob("*.png")) and not list(Path(out).rglob("*.jpg")):
            raise SystemExit("anomalib wrote no picture")
    del kept
    return seconds / count


def our_folder(folder: Path, count: int) -> float:
    """All files of a folder by the embedded model, which remembers good images: nearest neighbours, too."""
    import ad_dinov3
    from ad_dinov3.cli.app import main as command

    with tempfile.TemporaryDirectory() as out:
        detector = ad_dinov3.load()
        detector.remember(sorted(folder.glob("*.jpg"))[:_NORMALS])
        detector.save_pretrained(f"{out}/model")
        sys.argv = ["ad-dinov3", "predict", str(folder), "--model", f"{out}/model", "-o", f"{out}/found"]
        started = time.process_time()
        with suppress(SystemExit), redirect_stdout(sys.stderr):
            command()
        seconds = time.process_time() - started
        if len(list(Path(out).glob("found/overlays/*.jpg"))) != count:
            raise SystemExit("predict wrote too few pictures")
    return seconds / count


def peer_patchcore(folder: Path, count: int) -> float:
    """PatchCore's network and memory bank alone."""
    kept = with_operators()
    import torch
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(layers=["layer2", "layer3"], pre_trained=False).eval()
    model.memory_bank = torch.randn(_BANK, 1536)
    del kept
    return _scored(lambda: model(torch.rand(4, 3, _SIDE_PX, _SIDE_PX)), 4)


def our_embedded(folder: Path, count: int) -> float:
    """The embedded model that remembers good images, alone."""
    import numpy as np

    import ad_dinov3

    detector = ad_dinov3.load()
    detector.remember(sorted(folder.glob("*.jpg"))[:_NORMALS])
    batch = np.random.default_rng(0).integers(0, 256, (4, 3, _SIDE_PX, _SIDE_PX), np.uint8)
    return _scored(lambda: detector.score(batch, ["object"] * 4), 4)


def peer_winclip(folder: Path, count: int) -> float:
    """WinCLIP's network, ViT-B/16-plus-240, with a baked class."""
    kept = with_operators()
    import torch
    from anomalib.models.image.winclip import torch_model

    torch_model.PRETRAINED = None
    model = torch_model.WinClipModel(class_name="object").eval()
    del kept
    return _scored(lambda: model(torch.rand(1, 3, _WINCLIP_PX, _WINCLIP_PX)), 1)


def our_winclip(folder: Path, count: int) -> float:
    """The same shape here."""
    import torch

    from methods import SIZES, build_winclip  # of this folder

    built = build_winclip(SIZES["large"])
    images = torch.randint(0, 256, (1, 3, _WINCLIP_PX, _WINCLIP_PX), dtype=torch.uint8)
    return _scored(lambda: built.head.score(built.encoder.encode(images), ["object"]), 1)


def _scored(call: Callable[[], object], batch: int) -> float:
    """Processor seconds an image: the least of three calls after one that does not count."""
    import torch

    times = []
    with torch.inference_mode():
        for _ in range(4):
            started = time.process_time()
            call()
            times.append((time.process_time() - started) / batch)
    return min(times[1:])


def peer_auroc(folder: Path, count: int) -> float:
    """anomalib's pixel AUROC, from arrays to the number."""
    kept = with_operators()
    from anomalib.metrics.auroc import _AUROC

    del kept
    return _peer_metric(_AUROC())


def peer_aupro(folder: Path, count: int) -> float:
    """anomalib's AUPRO, exact thresholds, false positive rate up to 0.3."""
    kept = with_operators()
    from anomalib.metrics.aupro import _AUPRO

    del kept
    return _peer_metric(_AUPRO())


def _peer_metric(metric: Callable[..., object]) -> float:
    import numpy as np
    import torch

    maps, masks = (torch.from_numpy(np.load(f"{os.environ['PEERS_MAPS']}/{name}.npy")) for name in ("maps", "masks"))
    started = time.process_time()
    metric.update(maps, masks.int())  # type: ignore[attr-defined]
    value = float(metric.compute())  # type: ignore[attr-defined]
    seconds = time.process_time() - started
    print(f"value {value:.6f}", file=sys.stderr)
    return seconds


def our_auroc(folder: Path, count: int) -> float:
    """Exact pixel AUROC; average precision and F1-max come with it."""
    from ad_dinov3.metrics import ranking_metrics

    return _our_metric(lambda maps, masks: ranking_metrics(maps, masks).auroc)


def our_aupro(folder: Path, count: int) -> float:
    """Exact AUPRO, false positive rate up to 0.3."""
    from ad_dinov3.metrics import aupro, count_regions

    return _our_metric(lambda maps, masks: aupro(count_regions(maps, masks)))


def _our_metric(call: Callable[..., float | None]) -> float:
    import numpy as np

    maps, masks = (list(np.load(f"{os.environ['PEERS_MAPS']}/{name}.npy")) for name in ("maps", "masks"))
    started = time.process_time()
    value = call(maps, masks)
    seconds = time.process_time() - started
    print(f"value {value:.6f}", file=sys.stderr)
    return seconds


def peer_installed(folder: Path, count: int) -> float:
    """MB of anomalib and all that it needs beside torch."""
    return _installed("anomalib open_clip_torch")


def our_installed(folder: Path, count: int) -> float:
    """MB of what pyproject.toml asks for beside torch, and this package."""
    package = Path(__file__).parents[1] / "src"
    return _installed(_OURS) + sum(one.stat().st_size for one in package.rglob("*") if one.suffix != ".pyc") / 1e6


def _installed(names: str) -> float:
    """MB of the files of distributions and what they need; extras, torch and what torch needs are left out."""
    torch, found = _needed({"torch"}), _needed(set(names.split()))
    files = (file.locate() for name in found - torch for file in metadata.files(name) or ())
    return sum(Path(str(file)).stat().st_size for file in files if Path(str(file)).is_file()) / 1e6


def _needed(names: set[str]) -> set[str]:
    from packaging.requirements import Requirement

    waiting, found = list(names), set[str]()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            asked = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        requirements = [Requirement(line) for line in asked]
        waiting += [one.name for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


ROWS: dict[str, tuple[Callable[[Path, int], float], Callable[[Path, int], float]]] = {
    "import, s": (our_import, peer_import),
    "folder, all outputs, s an image": (our_folder, peer_folder),
    "nearest neighbours, network alone, s an image": (our_embedded, peer_patchcore),
    "WinCLIP, ViT-B/16-plus-240, s an image": (our_winclip, peer_winclip),
    f"pixel AUROC of {_MAPS} maps, s": (our_auroc, peer_auroc),
    f"AUPRO of {_MAPS} maps, s": (our_aupro, peer_aupro),
    "installed beside torch, MB": (our_installed, peer_installed),
}
PARTS = {part.__name__: part for row in ROWS.values() for part in row}


def in_process(python: str, part: str, folder: Path, count: int) -> tuple[float, float]:
    """A part's figure and its process's peak memory in MB."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    command = [python, __file__, str(folder), "--part", part, "--images", str(count)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{part}: {done.stderr[-800:]}")
    if "value " in done.stderr:
        print(f"  {part}: {done.stderr.split('value ')[-1].strip()}", flush=True)
    figure, peak = json.loads(done.stdout.splitlines()[-1])
    return figure, peak


def make_maps(folder: str) -> None:
    """The maps and masks of benchmarks/metrics.py, halved to 256 px, for both packages."""
    import numpy as np

    from metrics import make_set  # of this folder

    maps, masks = make_set(_MAPS)
    np.save(f"{folder}/maps.npy", np.stack(maps)[:, ::2, ::2])
    np.save(f"{folder}/masks.npy", np.stack(masks)[:, ::2, ::2])


def main() -> None:
    """Print one line a row: ours, anomalib's, the ratio, and both processes' peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peer", help="the python of the environment with anomalib")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        figure = PARTS[arguments.part](arguments.folder, arguments.images)
        print(json.dumps([figure, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
        return
    with tempfile.TemporaryDirectory() as work:
        os.environ["PEERS_MAPS"] = work
        make_maps(work)
        images = Path(work, "images")
        images.mkdir()
        for one in sorted(arguments.folder.rglob("*.jpg"))[: arguments.images]:
            (images / one.name).symlink_to(one.absolute())
        print(f"{'':46} {'ours':>8} {'anomalib':>9} {'ratio':>6}   peak MB, both", flush=True)
        for row, (ours, peers) in ROWS.items():
            pairs = [
                (
                    in_process(sys.executable, ours.__name__, images, arguments.images),
                    in_process(arguments.peer, peers.__name__, images, arguments.images),
                )
                for _ in range(1 if "installed" in row else arguments.rounds)
            ]
            (one, one_mb), (other, other_mb) = (min(column) for column in zip(*pairs, strict=True))
            print(f"{row:46} {one:8.3f} {other:9.3f} {other / one:6.1f}   {one_mb:.0f} {other_mb:.0f}", flush=True)


if __name__ == "__main__":
    main()
