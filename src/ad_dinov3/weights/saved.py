"""The folder of a saved model: where it is, and the settings in it, which are read without torch."""

from __future__ import annotations

from pathlib import Path

from ad_dinov3.assets import EMBEDDED, EMBEDDED_MODEL
from ad_dinov3.config import ModelConfig, model_config
from ad_dinov3.errors import WeightsError
from ad_dinov3.files import parse_json

CONFIG, HEAD = "config.json", "head.safetensors"
"""Names of the files without which a folder is no model."""


def saved_folder(where: str | Path, *, offline: bool = False) -> Path:
    """The folder of a model: the embedded one, one here, or one of the Hugging Face hub.

    Raises:
        WeightsError: there is no such model.
    """
    if str(where) == EMBEDDED:
        return EMBEDDED_MODEL
    if Path(where).is_dir():
        return Path(where)
    from huggingface_hub import snapshot_download  # slow to import
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(where), local_files_only=offline))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"{where}: no such model: not a folder here, not {EMBEDDED!r}, and not on the Hugging Face hub ({reason})"
        ) from None


def read_config(folder: Path) -> ModelConfig:
    """The settings of a saved model, whatever version of the layout they are in.

    Raises:
        WeightsError: the folder holds no model.
        ConfigError: config.json holds settings that this version does not know.
    """
    file = folder / CONFIG
    try:
        tree = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder}: not a saved model ({error}); expected {CONFIG} and {HEAD}") from None
    return model_config(tree, str(file))
