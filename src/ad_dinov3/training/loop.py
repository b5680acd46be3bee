"""The training loop: adapters on frozen features, from the cache or from the encoder at every step.

Two runs with one seed agree bit for bit on a CPU, also when one of them was killed and resumed: the order of the images
follows from seed and epoch alone, and a checkpoint at the end of every epoch holds all other state.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ad_dinov3.config import ModelConfig
from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.masks import MaskRule, load_mask
from ad_dinov3.data.transforms import resize_image
from ad_dinov3.encoders.cache import FeatureStore, bytes_per_image, check_disk, open_group
from ad_dinov3.errors import ConfigError, DataError, TrainingError
from ad_dinov3.files import file_hash, held, remove_unfinished
from ad_dinov3.methods.head import TrainableHead
from ad_dinov3.model import Model, save_model, withdraw_model
from ad_dinov3.training.augment import augment, mosaics
from ad_dinov3.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from ad_dinov3.training.distributed import Ranks, average_gradients, average_losses, join
from ad_dinov3.training.output import LOG, check_output, clear_run
from ad_dinov3.types import Features, ImageEncoder, Sample

_ENCODE_BATCH = 8


@dataclass(frozen=True)
class Progress:
    """Where a run is: ``phase`` is ``features`` or ``train``; ``done`` of ``total`` images or steps; last losses."""

    phase: str
    done: int
    total: int
    losses: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; nothing here changes its result on one machine.

    Attributes:
        device: a torch device.
        cache: read features from disk, made first where missing; else encode at every step.
        resume: go on from the last checkpoint in the output folder, if there is one.
        overwrite: replace the model or run in the output folder.
        announce: told the bytes that the cache will take and those already there, before anything is written.
        report: told of progress.
    """

    device: str = "cpu"
    cache: bool = True
    resume: bool = False
    overwrite: bool = False
    announce: Callable[[int, int], None] = lambda needed, present: None
    report: Callable[[Progress], None] = lambda progress: None


@dataclass(frozen=True)
class Batch:
    """One step's data.

    Attributes:
        features: of B images.
        masks: (B, H, W) float in [0, 1].
        labels: (B,) bool, whether an image is listed as anomalous.
        class_names: B names.
        rows: of the training set.
        weight: how many of the images count; 0 where a step has fewer images than there are processes.
    """

    features: Features
    masks: Tensor
    labels: Tensor
    class_names: list[str]
    rows: list[int]
    weight: int


@dataclass(frozen=True)
class TrainingSet:
    """The samples of a run, with what every epoch needs of them in memory.

    Attributes:
        samples: in a fixed order.
        keys: sha256 of each image file.
        masks: bit-packed (H, W) masks at the input's size.
        size: (H, W) of the input in px.
    """

    samples: tuple[Sample, ...]
    keys: tuple[str, ...]
    masks: tuple[bytes, ...]
    size: tuple[int, int]

    def mask(self, row: int) -> Tensor:
        """Mask (H, W) float of a sample."""
        count = self.size[0] * self.size[1]
        bits = np.unpackbits(np.frombuffer(self.masks[row], np.uint8), count=count)
        return torch.from_numpy(bits.reshape(self.size)).float()

    def targets(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Masks (B, H, W) float and labels (B,) bool: a defect that the resize erases leaves its image anomalous."""
        labels = torch.tensor([self.samples[row].is_anomalous for row in rows])
        return torch.stack([self.mask(row) for row in rows]), labels


def read_training_set(samples: Sequence[Sample], size: tuple[int, int], rule: MaskRule = "nearest") -> TrainingSet:
    """Hash the images and read the masks.

    Raises:
        DataError: there is no sample, none is anomalous, or a file cannot be read.
    """
    if not any(sample.is_anomalous for sample in samples):
        raise DataError(f"training needs images with anomalies and their masks; found none among {len(samples)}")
    masks = tuple(np.packbits(load_mask(sample, size, rule)).tobytes() for sample in samples)
    return TrainingSet(tuple(samples), tuple(file_hash(s.image_path) for s in samples), masks, size)


def train(model: Model, samples: Sequence[Sample], out: str | Path, options: RunOptions | None = None) -> Model:
    """Train a model's head and save it.

    Args:
        model: as `ad_dinov3.model.new_model` gives it; its head is trained in place.
        samples: labelled images with masks, of other data sets than those that the model will meet.
        out: the model's folder; also holds train.jsonl and checkpoint.safetensors.
        options: how the run is carried out.

    Returns:
        The trained model of the last epoch.

    Raises:
        ConfigError: augmentation together with the cache, a model without a trainable head, ``out`` is a file, or
            another run is writing there.
        DataError: samples that cannot be read.
        TrainingError: ``out`` holds a model or run that is neither resumed nor overwritten, a loss is NaN, the disk is
            too small, or the checkpoint belongs to another run.
    """
    options, out = options or RunOptions(), Path(out)
    config = model.config
    head = model.head
    if not isinstance(head, TrainableHead):
        raise ConfigError(f"{config.method.kind} has nothing to train")
    if (config.train.augment or config.train.mosaic_share) and options.cache:
        raise ConfigError("augmentation changes the images, cached features do not: add --no-cache, or do not augment")
    ranks = join(options.device)
    if ranks.first:
        check_output(out, resume=options.resume, overwrite=options.overwrite)
    data = read_training_set(samples, config.input.size, config.train.mask_rule)
    model = model.to(options.device)
    with held(out) if ranks.first else nullcontext():
        source = _cached(model.encoder, data, config, ranks, options) if options.cache else _live(model, data, ranks)
        _loop(head.train(), data, source, _Run(config, out, ranks, options))
        head.eval()
        trained = replace(model, training_images=model.training_images | set(data.keys))
        if ranks.first:
            save_model(trained, out)
    ranks.leave()
    return trained


@dataclass(frozen=True)
class _Run:
    config: ModelConfig
    out: Path
    ranks: Ranks
    options: RunOptions


Source = Callable[[list[int], int], Batch]  # all rows of one step, and the epoch: what one process learns from


def _loop(head: TrainableHead, data: TrainingSet, source: Source, run: _Run) -> None:
    settings, ranks = run.config.train, run.ranks
    optimiser = _optimiser(head, run.config)
    steps = -(-len(data.samples) // settings.batch_size)
    first = _resume(head, optimiser, data, run) if run.options.resume else 0
    if first == 0 and ranks.first:
        run.out.mkdir(parents=True, exist_ok=True)
        withdraw_model(run.out)
        clear_run(run.out)
    for epoch in range(first, settings.epochs):
        for step, batch in enumerate(_batches(data, source, epoch, run)):
            done = epoch * steps + step
            rate = learning_rate(run.config, done, steps * settings.epochs)
            for group in optimiser.param_groups:
                group["lr"] = rate
            start = time.perf_counter()
            losses = _step(head, optimiser, batch, run)
            if not np.isfinite(losses["total"]):
                names = ", ".join(str(data.samples[row].image_path) for row in batch.rows)
                raise TrainingError(f"the loss is {losses['total']} at epoch {epoch + 1}, step {step + 1}, on {names}")
            if ranks.first:
                seconds = round(time.perf_counter() - start, 4)
                _log(run.out / LOG, {"epoch": epoch, "step": done, "lr": rate, **losses, "seconds": seconds})
            run.options.report(Progress("train", done + 1, steps * settings.epochs, losses))
        if ranks.first:
            write_checkpoint(run.out, Checkpoint(epoch + 1, _identity(run.config, data)), head, optimiser)


def _step(head: TrainableHead, optimiser: torch.optim.Optimizer, batch: Batch, run: _Run) -> dict[str, float]:
    device = torch.device(run.options.device)
    features, masks, labels = batch.features.to(device), batch.masks.to(device), batch.labels.to(device)
    bf16 = device.type == "cuda" and run.config.train.precision == "bf16"
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        losses = head.losses(features, batch.class_names, masks, labels)
    optimiser.zero_grad(set_to_none=True)
    losses["total"].backward()  # type: ignore[no-untyped-call]
    average_gradients(head, run.ranks, batch.weight)
    optimiser.step()
    return average_losses(losses, run.ranks, batch.weight)


def learning_rate(config: ModelConfig, step: int, steps: int) -> float:
    """Linear warm-up from 0 over ``warmup_fraction`` of all steps, then along a cosine to ``last_rate`` of the peak.

    The default, 1, stays at the peak (released code).
    """
    settings = config.train
    warmup = int(settings.warmup_fraction * steps)
    if step < warmup:
        return settings.learning_rate * step / warmup
    falling = (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2
    return settings.learning_rate * (settings.last_rate + (1 - settings.last_rate) * falling)


def _optimiser(head: TrainableHead, config: ModelConfig) -> torch.optim.Optimizer:
    kind: type[torch.optim.Adam] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.train.optimizer]
    trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    return kind(
        trained, lr=config.train.learning_rate, betas=config.train.betas, weight_decay=config.train.weight_decay
    )


def _batches(data: TrainingSet, source: Source, epoch: int, run: _Run) -> Iterator[Batch]:
    settings = run.config.train
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(data.samples)).tolist()
    steps = [order[i : i + settings.batch_size] for i in range(0, len(order), settings.batch_size)]
    with ThreadPoolExecutor(1) as pool:  # the next batch is read while this one is learned from
        ahead = pool.submit(source, steps[0], epoch)
        for rows in steps[1:]:
            batch, ahead = ahead.result(), pool.submit(source, rows, epoch)
            yield batch
        yield ahead.result()


def _cached(encoder: ImageEncoder, data: TrainingSet, config: ModelConfig, ranks: Ranks, options: RunOptions) -> Source:
    store = fill_cache(encoder, data.samples, data.keys, config, options) if ranks.first else None
    ranks.wait()
    store = store or FeatureStore(open_group(encoder.spec, config.input.size, config.input.interpolation))

    def source(step: list[int], epoch: int) -> Batch:
        rows = step[ranks.share(len(step))]
        features = store.load([data.keys[row] for row in rows])
        return _batch(data, features, data.targets(rows), rows, ranks.weight(len(step)))

    return source


def fill_cache(
    encoder: ImageEncoder,
    samples: Sequence[Sample],
    keys: Sequence[str],
    config: ModelConfig,
    options: RunOptions,
) -> FeatureStore:
    """The feature store of some samples, with what was missing computed.

    Raises:
        TrainingError: the disk cannot hold it.
        ImageError: an image cannot be decoded.
    """
    size = config.input.size
    group = open_group(encoder.spec, size, config.input.interpolation)
    remove_unfinished(group.folder)
    store = FeatureStore(group)
    store.discard_damaged(keys)
    missing = {key: sample for key, sample in zip(keys, samples, strict=True) if key not in store}
    needed = len(missing) * bytes_per_image(encoder.spec, size)
    check_disk(group.folder, needed)
    options.announce(needed, group.bytes_on_disk)
    loaders = ((key, lambda sample=sample: _input(sample, config)) for key, sample in missing.items())
    for done in store.fill(encoder, loaders, _ENCODE_BATCH) if missing else ():
        options.report(Progress("features", done, len(missing)))
    return store


def _live(model: Model, data: TrainingSet, ranks: Ranks) -> Source:
    config, settings = model.config, model.config.train

    def source(step: list[int], epoch: int) -> Batch:
        share = ranks.share(len(step))
        rows = step if settings.mosaic_share else step[share]  # a mosaic's parts may be another process's
        images = torch.stack([_input(data.samples[row], config) for row in rows])
        masks, labels = data.targets(rows)
        if settings.augment:
            images, masks = _augmented(images, masks, [[settings.seed, epoch, row] for row in rows])
        if settings.mosaic_share:
            rng = np.random.default_rng([settings.seed, epoch, *step])
            made = mosaics(images, masks, labels, settings.mosaic_share, rng)
            images, masks, labels = (part[share] for part in made)
        features = model.encoder.encode(images)
        return _batch(data, features, (masks, labels), step[share], ranks.weight(len(step)))

    return source


def _augmented(images: Tensor, masks: Tensor, seeds: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Each image changed by its own seed, so that nothing depends on which process has it."""
    pairs = [
        augment(image[None], mask[None], np.random.default_rng(seed))
        for image, mask, seed in zip(images, masks, seeds, strict=True)
    ]
    return torch.cat([image for image, _ in pairs]), torch.cat([mask for _, mask in pairs])


def _input(sample: Sample, config: ModelConfig) -> Tensor:
    image = decode_image(sample.image_path)
    return torch.from_numpy(resize_image(image, config.input.size, config.input.interpolation))


def _batch(
    data: TrainingSet, features: Features, targets: tuple[Tensor, Tensor], rows: list[int], weight: int
) -> Batch:
    return Batch(features, *targets, [data.samples[row].class_name for row in rows], rows, weight)


def _identity(config: ModelConfig, data: TrainingSet) -> str:
    """What must be equal for a checkpoint to be resumed."""
    return json.dumps([config.model_dump(mode="json", exclude={"train": {"epochs"}}), sorted(data.keys)])


def _resume(head: TrainableHead, optimiser: torch.optim.Optimizer, data: TrainingSet, run: _Run) -> int:
    checkpoint = read_checkpoint(run.out, head, optimiser, run.options.device)
    if checkpoint is None:
        return 0
    if checkpoint.identity != _identity(run.config, data):
        raise TrainingError(
            f"{run.out}: the checkpoint belongs to a run with other settings or data; "
            "give the same ones, another --out, or --overwrite in place of --resume to start anew"
        )
    if run.ranks.first:
        kept = [json.dumps(row) for row in read_log(run.out) if row["epoch"] < checkpoint.epochs]
        (run.out / LOG).write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    return checkpoint.epochs


def read_log(out: Path) -> list[dict[str, float]]:
    """The steps in a run's log, up to a line that a kill cut short; empty without a log."""
    steps: list[dict[str, float]] = []
    path = out / LOG
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            steps.append(json.loads(line))
        except ValueError:
            break
    return steps


def _log(path: Path, row: dict[str, float]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
