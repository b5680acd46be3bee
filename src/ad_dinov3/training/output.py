"""The folder that a training run writes, and whether it may; needs no torch, so that it is asked before anything."""

from __future__ import annotations

from pathlib import Path

from ad_dinov3.errors import ConfigError, TrainingError

LOG = "train.jsonl"
CHECKPOINT = "checkpoint.safetensors"
CHART = "loss.svg"
_HEAD = "head.safetensors"


def check_output(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to write over a model or a run that nobody asked to go on with or to replace.

    Raises:
        ConfigError: both are asked for, or ``out`` is a file.
        TrainingError: the folder holds a model or a run and neither is asked for, or there is nothing to go on from.
    """
    if resume and overwrite:
        raise ConfigError("--resume goes on with what --overwrite deletes: give one of the two")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: expected a folder for the trained model, found a file")
    if overwrite:
        return
    has_model, has_checkpoint = (out / _HEAD).exists(), (out / CHECKPOINT).exists()
    if resume and has_model and not has_checkpoint:
        raise TrainingError(
            f"{out} holds a model and no {CHECKPOINT}, so there is nothing to resume: give --overwrite to replace it, "
            "or name another --out"
        )
    if not resume and (has_model or has_checkpoint or (out / LOG).exists()):
        raise TrainingError(
            f"{out} holds {'a trained model' if has_model else 'an unfinished training run'}: add --resume to go on "
            "with it, --overwrite to replace it, or name another --out"
        )


def clear_run(out: Path) -> None:
    """Delete an earlier run's log, checkpoint and chart."""
    for name in (LOG, CHECKPOINT, CHART):
        (out / name).unlink(missing_ok=True)
