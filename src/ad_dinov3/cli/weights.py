"""`ad-dinov3 weights`: which encoder weights are on this machine, whether they are whole, and how to get them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ad_dinov3.cli.machine import Json, Output
from ad_dinov3.cli.options import OUTPUT, command_app, path_here

if TYPE_CHECKING:
    from ad_dinov3.types import EncoderSpec

app = command_app("List, verify and download encoder weights.")


@app.command("list")
def list_weights(as_json: Json = False) -> None:
    """List the public models, and where each is found on this machine; nothing is downloaded."""
    from rich.table import Table

    from ad_dinov3.weights import (
        DINOV3_LICENCE_URL,
        LITE,
        NANO,
        PUBLIC_BACKBONES,
        PUBLIC_CLIPS,
        find_local,
        weights_folder,
    )

    table = Table("name", "shape", "licence", "on this machine", box=None, pad_edge=False)
    shapes = {LITE: "embedded", NANO: "embedded"}
    for row in PUBLIC_BACKBONES:
        shapes[row.name] = f"{row.kind} {'/'.join(map(str, row.widths))} x {'/'.join(map(str, row.depths))}"
    shapes |= {row.name: "CLIP text 768 x 12" for row in PUBLIC_CLIPS}
    licences = {LITE: "Apache-2.0", NANO: "Apache-2.0", **{row.name: "DINOv3" for row in PUBLIC_BACKBONES}}
    rows = []
    for name, shape in shapes.items():
        found = find_local(name)
        here = found if found and found.path.exists() else None
        licence = licences.get(name, "MIT")
        table.add_row(name, shape, licence, f"{here.path} ({here.origin})" if here else "[dim]not here[/dim]")
        rows.append({"name": name, "shape": shape, "licence": licence, "path": here.path if here else None})
    output = Output(as_json)
    console = output.console
    console.print(table)
    output.result({"weights": rows})
    folder = weights_folder()
    console.print(f"\nAD_DINOV3_WEIGHTS: {folder if folder else 'not set'}", highlight=False)
    console.print(f"DINOv3 License: {DINOV3_LICENCE_URL}", highlight=False)
    console.print("Get one: ad-dinov3 weights download NAME -o DIR", highlight=False)


@app.command()
def verify(
    name_or_path: Annotated[
        str, typer.Argument(help="A model's name, or a folder or file of weights.", metavar="NAME")
    ],
    as_json: Json = False,
) -> None:
    """Verify weights on this machine: sha256, layout, shapes, and that they compute; nothing is downloaded."""
    from ad_dinov3.weights import (
        check_hashes,
        checkpoint_file,
        is_clip,
        resolve_weights,
        tensor_names,
    )

    source = resolve_weights(name_or_path, offline=True)
    folder, file = checkpoint_file(source)
    output = Output(as_json)
    said = [f"{file} ({source.origin})", *check_hashes(folder, file)]
    if is_clip(tensor_names(file)):
        from ad_dinov3.encoders.clip_text import build_clip_text
        from ad_dinov3.weights import load_clip_weights

        weights = load_clip_weights(source)
        width = build_clip_text(weights, weights.activation or "quick_gelu").encode_sentences(["a photo"]).shape[-1]
        trained = weights.activation or "an activation that the files do not tell"
        said.append(f"ok: {source.name}, a CLIP text tower trained with {trained}; embeddings of {width}")
    else:
        layout, spec = _try_backbone(name_or_path)
        stages = ", ".join(map(str, spec.widths))
        said.append(f"ok: {spec.name} in {layout}'s layout; patches of {spec.patch_size} px, stages of {stages}")
        said.append(f"licence: {spec.licence}")
    for line in said:
        output.console.print(line, highlight=False, soft_wrap=True)
    output.result({"name": source.name, "path": file, "found": said[1:]})


@app.command()
def download(
    name: Annotated[
        str,
        typer.Argument(help="A public name (see list), or a repository on Hugging Face (owner/name).", metavar="NAME"),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            parser=path_here,
            help="The folder that the model's folder is put in. It can be carried to offline machines.",
            metavar="DIR",
            rich_help_panel=OUTPUT,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Download a model's weights, tokenizer and licence into a folder, with the sha256 of every file beside them."""
    from ad_dinov3.errors import WeightsError
    from ad_dinov3.weights import (
        DINOV3_LICENCE,
        DINOV3_LICENCE_URL,
        LITE,
        NANO,
        PublicBackbone,
        download_snapshot,
        hub_repository,
        public_row,
        ways,
        write_sums,
    )

    if name in (LITE, NANO):
        raise WeightsError(f"{name} comes with the package; there is nothing to download")
    row = public_row(name)
    repository = hub_repository(name)
    folder = out / (row.name if row else repository.partition("/")[2])
    download_snapshot(repository, ways(row), folder)
    sums = write_sums(folder)
    output = Output(as_json)
    said = [f"{repository} -> {folder} (sha256 of every file in {sums.name})"]
    if isinstance(row, PublicBackbone):
        said.append(f"These weights are under the {DINOV3_LICENCE}: {DINOV3_LICENCE_URL}")
    said += [f"Check: ad-dinov3 weights verify {folder}", f"Found by name with AD_DINOV3_WEIGHTS={out}"]
    for line in said:
        output.console.print(line, highlight=False, soft_wrap=True)
    output.result({"repository": repository, "folder": folder, "sums": sums})


def _try_backbone(name_or_path: str) -> tuple[str, EncoderSpec]:
    """The layout and the spec of a backbone that has encoded a small image."""
    import torch

    from ad_dinov3.encoders.backbone import build_backbone
    from ad_dinov3.errors import WeightsError
    from ad_dinov3.weights import load_backbone_weights, resolve_weights

    weights = load_backbone_weights(resolve_weights(name_or_path, offline=True))
    encoder = build_backbone(weights)
    side = 2 * encoder.spec.size_multiple
    features = encoder.encode(torch.full((1, 3, side, side), 127, dtype=torch.uint8))
    if not all(bool(torch.isfinite(tokens).all()) for tokens in features.patch_tokens):
        raise WeightsError(f"{weights.path}: expected finite features, found NaN or infinity; download it again")
    return weights.layout, encoder.spec
