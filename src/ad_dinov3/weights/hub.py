"""The Hugging Face hub: what its cache holds, and one download with its errors in words.

The hub's library is imported where it is used: it brings an HTTP client, and embedded or local weights need neither.
"""

from __future__ import annotations

import os
from pathlib import Path

from ad_dinov3.errors import WeightsError

_CHECKPOINTS = ("model.safetensors", "model.safetensors.index.json", "open_clip_model.safetensors")
_WANTED = [
    "*.json",
    "merges.txt",
    "model.safetensors",
    "model-*.safetensors",
    "open_clip_model.safetensors",
    "LICENSE*",
    "README.md",
]


def cached_snapshot(repository: str) -> Path | None:
    """The folder of a repository in the Hugging Face cache, if its checkpoint is there; nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for name in _CHECKPOINTS:
        try:
            found = try_to_load_from_cache(repository, name)
        except HFValidationError:  # a name that no repository can have
            return None
        if isinstance(found, str):
            return Path(found).parent
    return None


def download_snapshot(repository: str, ways: str, to: Path | None = None) -> Path:
    """Download a model's checkpoint, configuration, tokenizer and licence, once, and give the folder.

    Args:
        repository: its id, such as ``timm/vit_large_patch16_dinov3.lvd1689m``.
        ways: other ways to get it, for the message.
        to: a folder to put the files in; by default the Hugging Face cache.

    Raises:
        WeightsError: the repository is gated or unknown, there is no network, or HF_HUB_OFFLINE is set.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: of the HTTP library below the hub
        GatedRepoError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        # snapshot_download asks the hub once before any file, and fails at once without a network; asking for single
        # files would retry for half a minute.
        return Path(snapshot_download(repository, local_dir=to, allow_patterns=_WANTED))
    except GatedRepoError:
        login = "its licence is not accepted yet for your account" if _has_token() else "you are not logged in"
        raise WeightsError(f"{repository}: gated, and {login}.{ways}") from None
    except RepositoryNotFoundError:
        raise WeightsError(f"{repository}: no such repository on Hugging Face, or not visible to you.{ways}") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        reason = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else "huggingface.co cannot be reached"
        raise WeightsError(f"{repository}: not on this machine, and {reason}.{ways}") from None
    except (HTTPError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise WeightsError(f"{repository}: the download failed ({first}).{ways}") from None


def _has_token() -> bool:
    from huggingface_hub import constants

    return bool(os.environ.get("HF_TOKEN")) or Path(constants.HF_TOKEN_PATH).is_file()
