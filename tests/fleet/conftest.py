from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
import s3_server


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3_server.Store]:
    pytest.importorskip("moto", reason='an S3 server to test with: pip install "moto[s3,server]"')
    pytest.importorskip("s3fs", reason="the extra cloud")
    with s3_server.s3_server() as (endpoint, front):
        for name, value in s3_server.environment(endpoint).items():
            monkeypatch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        from ad_dinov3.data.remote import remote_version

        remote_version.cache_clear()
        yield s3_server.Store(endpoint, front)
