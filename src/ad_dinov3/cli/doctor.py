"""`ad-dinov3 doctor`: what this machine can do, and what to run where it cannot."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import typer

from ad_dinov3.cli.machine import Json, Output
from ad_dinov3.cli.options import command_app

app = command_app()

_GIB = 1 << 30
_LOW_BYTES = 2 * _GIB  # memory or disk below this is worth a warning: ViT-L needs about 1.5 GB at 512 px
# module -> (what it is for, the extra that brings it; None: install it by its own name)
_OPTIONAL: dict[str, tuple[str, str | None]] = {
    "pyarrow": ("Parquet results", "parquet"),
    "fastapi": ("the service (ad-dinov3 serve)", "serve"),
    "av": ("video files", "video"),
    "tensorboard": ("loss curves while training", "tensorboard"),
    "onnxruntime": ("prediction without torch", None),
    "openvino": ("prediction on Intel processors", None),
}


class Finding(NamedTuple):
    """One line of the report: how it stands (ok, note, problem), about what, and the words."""

    state: str
    subject: str
    words: str


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check Python, processor, torch, weights, memory, disk and runtimes; exit code 1 if something must be fixed."""
    from rich.table import Table
    from rich.text import Text

    findings = [
        *_python(),
        *_processor(),
        *_torch(),
        *_torchvision(),
        *_transformers(),
        *_weights(),
        *_room(),
        *_optional(),
    ]
    table = Table(box=None, show_header=False, pad_edge=False)
    colours = {"ok": "green", "note": "yellow", "problem": "red"}
    for finding in findings:
        table.add_row(Text(finding.state, style=colours[finding.state]), finding.subject, Text(finding.words))
    output = Output(as_json)
    output.console.print(table)
    output.result({"findings": [finding._asdict() for finding in findings]})
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)


def _python() -> Iterator[Finding]:
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _processor() -> Iterator[Finding]:
    from ad_dinov3.export.processor import read_processor

    processor = read_processor()
    if processor is not None:
        yield Finding("ok" if processor.multiplies_bytes else "note", "processor", f"{processor}; {processor.advice}")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library that torch was built against is missing
        yield Finding("problem", "torch", f"cannot be imported ({error}); run: pip install -c constraints.txt .")
        return
    yield Finding("ok", "torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        name, (_, total) = torch.cuda.get_device_name(0), torch.cuda.mem_get_info(0)
        yield Finding("ok", "gpu", f"{name}, {total / _GIB:.0f} GiB; use it with --device cuda")
    else:
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is a CPU build"
        yield Finding("note", "gpu", f"none that torch can use ({built}); everything runs on the CPU")


def _torchvision() -> Iterator[Finding]:
    """A torchvision that does not fit torch makes transformers fail with messages that never name it."""
    if importlib.util.find_spec("torchvision") is None:
        yield Finding("ok", "torchvision", "not installed, and not needed")
        return
    version = importlib.metadata.version("torchvision")
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        fix = "run: pip uninstall torchvision (it is not needed here), or install the build that fits this torch"
        yield Finding("problem", "torchvision", f"{version} does not fit this torch ({error}); {fix}")
    else:
        yield Finding("ok", "torchvision", f"{version} works beside this torch; it is not needed")


def _transformers() -> Iterator[Finding]:
    try:
        from transformers import CLIPTextModelWithProjection, DINOv3ViTModel
    except (ImportError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        yield Finding("problem", "transformers", f'cannot be used ({first}); run: pip install "transformers>=5"')
        return
    models = ", ".join(model.__name__ for model in (DINOv3ViTModel, CLIPTextModelWithProjection))
    yield Finding("ok", "transformers", f"{importlib.metadata.version('transformers')} with {models}")


def _weights() -> Iterator[Finding]:
    from huggingface_hub import constants

    from ad_dinov3.weights import LITE, NANO, PUBLIC_BACKBONES, PUBLIC_CLIPS, find_local, weights_folder

    folder = weights_folder()
    if folder is not None and not folder.is_dir():
        yield Finding("problem", "AD_DINOV3_WEIGHTS", f"{folder} is not a folder; correct or unset the variable")
    for name in (LITE, NANO, *(row.name for row in (*PUBLIC_BACKBONES, *PUBLIC_CLIPS))):
        found = find_local(name)
        if found is not None and found.path.exists():
            yield Finding("ok", name, f"{found.path} ({found.origin})")
        elif name in (LITE, NANO):
            yield Finding("problem", name, f"{found.path if found else ''} is missing; install the package again")
    if not any(find_local(row.name) for row in PUBLIC_BACKBONES):
        yield Finding("note", "weights", "no public backbone here; lite0 works without; see: ad-dinov3 weights list")
    if constants.is_offline_mode():
        yield Finding("note", "network", "HF_HUB_OFFLINE is set: nothing is downloaded")


def _room() -> Iterator[Finding]:
    memory = _available_memory()
    if memory is not None:
        state = "ok" if memory > _LOW_BYTES else "note"
        yield Finding(state, "memory", f"{memory / _GIB:.1f} GiB free, {os.cpu_count()} processors")
    for subject, folder in (("disk here", Path.cwd()), ("disk of the caches", Path.home())):
        free = shutil.disk_usage(folder).free
        yield Finding("ok" if free > _LOW_BYTES else "note", subject, f"{free / _GIB:.1f} GiB free at {folder}")


def _available_memory() -> int | None:
    """Bytes of memory that new work can have; None where the system does not tell (Linux does)."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    values = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(values["MemAvailable"].split()[0]) * 1024


def _optional() -> Iterator[Finding]:
    for module, (use, extra) in _OPTIONAL.items():
        if importlib.util.find_spec(module) is not None:
            yield Finding("ok", module, f"{importlib.metadata.version(module)} ({use})")
        else:
            line = f'pip install "ad-dinov3[{extra}]"' if extra else f"pip install {module}"
            yield Finding("note", module, f"not installed ({use}); run: {line}")
