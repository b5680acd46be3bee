"""Google's and Azure's stores by their emulators: images from there, results into there, copies; equal to folders."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from toy_detector import ToyDetector, draw_part

from ad_dinov3.data.copies import here
from ad_dinov3.data.remote import list_files, put_file, read_bytes
from ad_dinov3.data.streams import find_images
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, FolderSummary, score_into_folder
from ad_dinov3.predict.store import UriStore

PORT = 10123  # azurite listens where it is told alone
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # Azurite's, public


@contextmanager
def google(patched: pytest.MonkeyPatch) -> Iterator[str]:
    server = pytest.importorskip("gcp_storage_emulator.server", reason="pip install gcp-storage-emulator")
    patched.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # asks by gRPC what the emulator does not know
    pytest.importorskip("gcsfs", reason="the extra cloud")
    from fsspec.config import conf

    emulator = server.create_server("127.0.0.1", 9023, in_memory=True, default_bucket="parts")
    emulator.start()
    patched.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9023")
    patched.setitem(conf, "gs", {"token": "anon"})
    yield "gs://parts"
    emulator.stop()


@contextmanager
def azure(patched: pytest.MonkeyPatch) -> Iterator[str]:
    azurite = shutil.which("azurite-blob")
    if azurite is None:
        pytest.skip("no azurite-blob: npm install -g azurite")
    blob = pytest.importorskip("azure.storage.blob", reason="the extra cloud")
    pytest.importorskip("adlfs", reason="the extra cloud")
    words = [azurite, "--silent", "--disableTelemetry", "--inMemoryPersistence", "--skipApiVersionCheck"]
    running = subprocess.Popen([*words, "--blobPort", str(PORT)], stdout=subprocess.PIPE, text=True)
    login = f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={KEY};"
    login += f"BlobEndpoint=http://127.0.0.1:{PORT}/devstoreaccount1;"
    patched.setenv("AZURE_STORAGE_CONNECTION_STRING", login)
    try:
        assert running.stdout is not None
        while "successfully listens" not in running.stdout.readline():
            time.sleep(0.01)
        blob.BlobServiceClient.from_connection_string(login).create_container("parts")
        yield "az://parts"
    finally:
        running.terminate()
        running.wait()


def score(source: str, folder: Path, remote: UriStore | None = None) -> FolderSummary:
    run = FolderRun(folder, "toy", "f1", DriveOptions(rule=DecisionRule(0.3)), tables=("coco",), remote=remote)
    return score_into_folder(find_images([source]), ToyDetector(), run)


@pytest.mark.parametrize("cloud", [google, azure])
def test_a_cloud_is_read_and_written_as_a_folder_is(
    cloud: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for index in range(6):
        draw_part(tmp_path / "parts" / f"{index % 2}" / f"{index}.png", blemish=index % 3 == 0)
    score(str(tmp_path / "parts"), tmp_path / "here")
    with cloud(monkeypatch) as base:  # type: ignore[operator]
        for path in sorted((tmp_path / "parts").rglob("*.png")):
            put_file(path, f"{base}/in/{path.relative_to(tmp_path / 'parts').as_posix()}")
        out = UriStore(f"{base}/out")
        first, second = (score(f"{base}/in/", tmp_path / name, out) for name in ("one", "two"))
        assert (first.run.scored, second.skipped) == (6, 6)
        there = {file.name: read_bytes(file.uri) for file in list_files(out.uri)}
        copied = {path.name: path.read_bytes() for path in here(f"{base}/in").rglob("*.png")}
    kept = [path for path in (tmp_path / "here").rglob("*") if path.is_file()]
    names = {path.relative_to(tmp_path / "here").as_posix(): path.read_bytes() for path in kept}
    assert there.keys() == names.keys()
    for name in names.keys() - {"results.jsonl", "run.json", "report.html"}:
        assert there[name] == names[name], name
    assert copied == {path.name: path.read_bytes() for path in (tmp_path / "parts").rglob("*.png")}
