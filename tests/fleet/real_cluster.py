"""Predict with normal images on a local Ray cluster, from and into S3, held against one process: FOLDER/told.json.

unshare -n sh -c 'ip link set lo up; exec python tests/fleet/real_cluster.py FOLDER'
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import s3_server
from PIL import Image, ImageDraw
from pydantic import TypeAdapter

from ad_dinov3.data.remote import list_files, read_bytes
from ad_dinov3.predict.results import Row

ROW = TypeAdapter(Row)
KINDS = ("overlays/", "maps/", "masks/", "coco.json", "missing.txt")


def draw(path: Path, grey: int, is_bad: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (96, 80), (grey, 60, 60))
    if is_bad:
        ImageDraw.Draw(picture).rectangle([60, 50, 83, 69], "white")
    picture.save(path)


def predict(source: str, out: str, *more: str) -> tuple[int, list[str]]:
    """The exit code, and what is said of near copies."""
    command = [sys.executable, "-m", "ad_dinov3", "predict", source, "-o", out, "--coco", "--batch-size", "1", *more]
    run = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    return run.returncode, [line for line in run.stdout.splitlines() if "nearly" in line]


def rows(content: bytes) -> list[dict[str, object]]:
    found = map(ROW.validate_json, content.splitlines())
    return [asdict(replace(row, seconds=0.0, path="", key="")) for row in found]


def main() -> None:
    root = Path(sys.argv[1])
    for index in range(24):
        draw(root / "parts" / f"{index:02d}.png", 60 + index, is_bad=index % 4 == 0)
        draw(root / "good" / f"{index:02d}.png", 62 + index, is_bad=False)
    (root / "parts" / "bad.png").write_bytes(b"no image")
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}
    with s3_server.s3_server() as (endpoint, _):
        os.environ |= s3_server.environment(endpoint)
        s3_server.upload(root / "parts", endpoint)
        answers = [predict(str(root / "parts"), str(root / "here"), "--normals", str(root / "good"))]
        away = ("--normals", str(root / "good"), "--engine", "ray", "--actors", "2")
        answers.append(predict("s3://parts/", "s3://parts/out", *away))
        there = {file.name: read_bytes(file.uri) for file in list_files("s3://parts/out")}
    here = {path.relative_to(root / "here").as_posix(): path for path in (root / "here").rglob("*") if path.is_file()}
    kept = {name: content for name, content in there.items() if name.startswith(KINDS)}
    told = {
        "codes": [code for code, _ in answers],
        "copies": [copies for _, copies in answers],
        "rows": rows(there["results.jsonl"]) == rows(here["results.jsonl"].read_bytes()),
        "files": kept == {name: path.read_bytes() for name, path in here.items() if name.startswith(KINDS)},
        "anomalous": sum(row["decision"] == "anomalous" for row in rows(there["results.jsonl"])),
        "p_values": sum(row["p_value"] is not None for row in rows(there["results.jsonl"])),
        "count": len(kept),
    }
    (root / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
