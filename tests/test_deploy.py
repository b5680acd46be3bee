"""The files of deploy/: what can be checked of them without a daemon or a cluster."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, lines joined, here-documents kept with theirs."""
    found: list[tuple[str, str]] = []
    until = ""
    for line in text.splitlines():
        if until:
            found[-1] = (found[-1][0], f"{found[-1][1]}\n{line}")
            until = "" if line == until else until
            continue
        if not line.strip() or line.startswith("#"):
            continue
        if found and found[-1][1].endswith("\\"):
            found[-1] = (found[-1][0], found[-1][1][:-1] + line.strip())
        else:
            word, _, rest = line.partition(" ")
            found.append((word, rest))
        started = re.search(r"<<'?(\w+)'?$", line)
        until = started[1] if started else ""
    return found


def required(name: str) -> str:
    """A requirement's distribution."""
    return re.split(r"[<>=\[ ]", name)[0]


def test_the_image_has_two_stages_no_root_and_a_health_check() -> None:
    lines = instructions((DEPLOY / "Dockerfile").read_text())
    words = [word for word, _ in lines]
    known = "FROM WORKDIR COPY RUN LABEL ENV USER EXPOSE STOPSIGNAL HEALTHCHECK ENTRYPOINT CMD"
    assert set(words) <= set(known.split())
    assert words.count("FROM") == 2
    last = lines[max(index for index, word in enumerate(words) if word == "FROM") :]
    assert ("USER", "10001") in last
    assert "--uid 10001" in dict(last)["RUN"]
    assert "/readyz" in dict(last)["HEALTHCHECK"]
    assert dict(last)["ENTRYPOINT"].startswith('["')  # exec form: signals reach the service
    assert all(":latest" not in rest and ":" in rest for word, rest in lines if word == "FROM")


def test_the_image_has_what_the_service_imports_and_no_torch() -> None:
    run = next(rest for word, rest in instructions((DEPLOY / "Dockerfile").read_text()) if "REQUIREMENTS" in rest)
    installed = run.split("REQUIREMENTS'")[1].splitlines()[1:-1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    }
    assert set(installed) <= declared
    left_out = {required(line) for line in project["dependencies"]} - {required(line) for line in installed}
    assert left_out == {"torch", "transformers", "huggingface_hub"}
    assert set(project["optional-dependencies"]["serve"]) <= set(installed)


def manifests() -> Iterator[dict[str, object]]:
    yield from yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())


def test_the_pod_has_probes_limits_and_no_rights() -> None:
    deployment, service = manifests()
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    probes = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert probes == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert pod["securityContext"]["runAsUser"] == 10001
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"]
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_compose_has_the_service_behind_keys_and_prometheus_beside_it() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert all(port.startswith("127.0.0.1:") for one in services.values() for port in one["ports"])
    assert "--keys" in services["ad-dinov3"]["command"]
    scraped = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"][0]
    assert scraped["static_configs"][0]["targets"] == ["ad-dinov3:8000"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_unit_passes_systemds_own_check(tmp_path: Path) -> None:
    unit = tmp_path / "ad-dinov3.service"
    text = (DEPLOY / "ad-dinov3.service").read_text()
    unit.write_text(text.replace("/opt/ad-dinov3/bin/ad-dinov3", "/bin/true"))  # it must exist where it is checked
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=120
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_commands_of_the_files_name_options_that_serve_has() -> None:
    from typer.main import get_command

    from ad_dinov3.cli.serve import app

    known = {name for parameter in get_command(app).params for name in parameter.opts}
    started = {
        "compose.yaml": yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["ad-dinov3"]["command"],
        "kubernetes.yaml": next(manifests())["spec"]["template"]["spec"]["containers"][0]["args"],
        "Dockerfile": re.findall(r'"([^"]*)"', (DEPLOY / "Dockerfile").read_text().split("ENTRYPOINT")[1]),
        "ad-dinov3.service": re.findall(r"ExecStart=(.*)", (DEPLOY / "ad-dinov3.service").read_text())[0].split(),
    }
    for file, words in started.items():
        options = {word for word in words if word.startswith("--")}
        assert "--model" in options <= known, file
