"""The templates of deploy/cluster cannot be run here: what can be told without their schedulers is."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer.main
import yaml

from ad_dinov3.cli import merge, predict, train

FOLDER = Path(__file__).parents[2] / "deploy" / "cluster"
FILES = sorted(FOLDER.iterdir())
COMMAND = r"""(?:ad-dinov3|-m ad_dinov3) (predict|merge|train)\b([^|"'\n]*(?:"[^"]*"[^|"'\n]*)*)"""
APPS = {"predict": predict.app, "merge": merge.app, "train": train.app}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_commands_of_a_template_use_options_that_there_are(file: Path) -> None:
    text = file.read_text().replace("\\\n", " ")
    commands = re.findall(
        r"(?:ad-dinov3|-m ad_dinov3) (predict|merge|train)\b([^|\"'\n]*(?:\"[^\"]*\"[^|\"'\n]*)*)", text
    )
    assert commands
    for verb, rest in commands:
        known = {name for option in typer.main.get_command(APPS[verb]).params for name in option.opts}
        used = {word for word in shlex.split(rest, comments=True) if word.startswith("-")}
        assert used <= known, file


def test_numbers_of_shards_agree_with_the_schedulers_numbers() -> None:
    slurm = (FOLDER / "slurm-array.sbatch").read_text()
    assert re.findall(r"--array=0-(\d+)", slurm) == ["15"]
    job = yaml.safe_load((FOLDER / "indexed-job.yaml").read_text())
    assert job["spec"]["completionMode"] == "Indexed"
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert f"--shard auto/{job['spec']['completions']} " in container["args"][0]
    assert "--shard auto/16 " in slurm


@pytest.mark.parametrize("file", [file for file in FILES if file.suffix == ".sbatch"], ids=lambda file: file.name)
def test_a_batch_script_parses(file: Path) -> None:
    subprocess.run(["bash", "-n", str(file)], check=True)


@pytest.mark.parametrize("file", [file for file in FILES if file.suffix == ".yaml"], ids=lambda file: file.name)
def test_a_manifest_mounts_every_volume_that_it_names(file: Path) -> None:
    def specs(value: object) -> list[dict[str, list[dict[str, object]]]]:
        if isinstance(value, list):
            return [found for one in value for found in specs(one)]
        if not isinstance(value, dict):
            return []
        own = [value] if "containers" in value else []
        return own + [found for one in value.values() for found in specs(one)]

    found = specs(yaml.safe_load(file.read_text()))
    assert found
    for spec in found:
        mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}  # type: ignore[attr-defined]
        assert mounted == {volume["name"] for volume in spec["volumes"]}
