"""Who may ask, and where the service may listen."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_client import Answer, ask
from live_service import service
from toy_detector import ToyDetector, draw_part

from ad_dinov3.errors import ConfigError
from ad_dinov3.serve.app import ServeOptions
from ad_dinov3.serve.keys import check_address, read_keys

FIRST, SECOND = "k" * 16, "0123456789abcdef-_"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with service({"line": ToyDetector()}, ServeOptions(keys=(FIRST, SECOND))) as running:
        yield running


def asked(url: str, authorization: str, body: bytes | None = None) -> Answer:
    return ask(urllib.request.Request(url, body, {"Authorization": authorization, "Content-Type": "image/png"}))


@pytest.mark.parametrize("key", [f"Bearer {FIRST}", f"bearer  {SECOND}"])
def test_any_of_the_keys_will_do(address: str, key: str, tmp_path: Path) -> None:
    body = draw_part(tmp_path / "part.png").read_bytes()
    assert asked(f"{address}/predict", key, body).status == 200
    assert asked(f"{address}/health", key).status == 200


@pytest.mark.parametrize("key", ["", FIRST, "Bearer", f"Basic {FIRST}", f"Bearer {FIRST}k", "Bearer " + "\xe4" * 16])
def test_without_one_nothing_is_answered_that_shows_anything(address: str, key: str) -> None:
    for path, body in (("predict", b"x"), ("health", None), ("v2", None), ("nowhere", None), ("metrics/", None)):
        answer = asked(f"{address}/{path}", key, body)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "error" in json.loads(asked(f"{address}/v2", key).body)


def test_probes_figures_the_page_and_the_documentation_need_none(address: str) -> None:
    paths = ("", "healthz", "readyz", "v2/health/live", "v2/health/ready", "metrics", "docs", "openapi.json")
    assert [ask(f"{address}/{path}").status for path in paths] == [200] * len(paths)
    assert 'id="key"' in ask(f"{address}/").body.decode()
    assert "HTTPBearer" in ask(f"{address}/openapi.json").body.decode()


def test_keys_come_from_a_file_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# cameras\n{FIRST}\n\n  {SECOND}  \n")
    assert read_keys(file, f"{'e' * 16},{FIRST}") == ("e" * 16, FIRST, SECOND)
    assert read_keys(None) == ()


@pytest.mark.parametrize("content", ["", "# none\n", "short\n", "two words that are long\n"])
def test_files_without_a_key_worth_the_name_are_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    with pytest.raises(ConfigError, match="openssl"):
        read_keys(file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(tmp_path / "none")


def test_listening_beyond_this_machine_takes_keys_or_a_word() -> None:
    for address in ("127.0.0.1", "127.0.1.1", "::1"):
        check_address(address, (), is_open=False)
    for address in ("0.0.0.0", "192.168.1.5", "::"):
        check_address(address, (FIRST,), is_open=False)
        check_address(address, (), is_open=True)
        with pytest.raises(ConfigError, match="--keys FILE"):
            check_address(address, (), is_open=False)
