"""Tables 2 and 3 in small, and the switches behind the preset `default`: every variant with several seeds, one table.

    python recipes/ablation.py --data ROOT --weights nano_rendered --out results/ablation

Trains on five data sets below ROOT and tests on two others, all in MVTec AD's folder shape. Features of every image are
computed once (see `ad-dinov3 cache`); a variant that has its rows already is not run again, so the command resumes.
The set named by --choose decides what `default` becomes; the other test set decides nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ad_dinov3.config import ModelConfig
from ad_dinov3.data.catalog import read_data
from ad_dinov3.data.listing import spread
from ad_dinov3.encoders.backbone import load_backbone
from ad_dinov3.encoders.cache import FeatureStore
from ad_dinov3.files import file_hash, write_text
from ad_dinov3.methods.table import borrowing
from ad_dinov3.metrics.ranking import ranking_metrics
from ad_dinov3.model import Model, new_model
from ad_dinov3.ops import resize_map
from ad_dinov3.training.loop import RunOptions, TrainingSet, fill_cache, read_training_set, train
from ad_dinov3.types import Sample

LOG = logging.getLogger("ablation")
BASE = {
    "method.prompts.source": "learned",
    "method.width": 64,
    "train.learning_rate": 1e-3,
    "train.batch_size": 16,
    "method.loss.resolution": "mid",
}
VARIANTS: dict[str, dict[str, object] | None] = {
    "untrained (Table 2, row 1)": None,
    "CMCL (Table 2, row 2)": {"method.loss.aacm": 0, "method.loss.image": 0},
    "CMCL + AACM (Table 2, row 3)": {"method.loss.image": 0},
    "base: CMCL + AACM + image term, four stages": {},
    "AACM without CMCL": {"method.loss.cross_modal": 0},
    "last stage alone (Table 3)": {"method.stages": "last"},
    "AACM sigma: softmax over patches": {"method.aacm_sigma": "softmax"},
    "lambdas 1 / 1 / 0": {"method.loss.cross_modal": 1, "method.loss.aacm": 1, "method.loss.image": 0},
    "loss of each stage": {"method.loss.over_stages": "per_stage"},
    "loss at the patch grid": {"method.loss.resolution": "grid"},
    "loss at full resolution": {"method.loss.resolution": "full"},
    "raw tokens": {"method.tokens": "raw"},
    "whitened tokens": {"method.tokens": "whiten"},
    "rarity 24": {"method.rarity": 24},
    "logits fused": {"method.fusion": "logits"},
    "bottleneck adapter": {"method.adapter": "bottleneck"},
    "residual 0.5": {"method.residual": 0.5},
    "text not normalised": {"method.text_norm": False},
    "gain 10": {"method.gain": 10},
    "gain and bias learned from 10": {"method.gain": 10, "method.learned_gain": True},
    "rarity, logits fused, bottleneck, learned gain": {
        "method.rarity": 24,
        "method.fusion": "logits",
        "method.adapter": "bottleneck",
        "method.gain": 10,
        "method.learned_gain": True,
    },
}


def main() -> None:
    """Run what is missing, then write the table."""
    arguments = parsed()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    rows_file = arguments.out / "rows.jsonl"
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = ModelConfig().with_settings(
        BASE
        | {
            "encoder": arguments.weights,
            "input.height": arguments.size,
            "input.width": arguments.size,
            "train.epochs": arguments.epochs,
            "trained_on": arguments.train,
        }
    )
    training = [s for name in arguments.train for s in spread(read_data(str(arguments.data / name)), arguments.limit)]
    tests = {name: spread(read_data(str(arguments.data / name)), arguments.limit_test) for name in arguments.test}
    prepared = {name: prepare(config, samples) for name, samples in tests.items()}
    for name, variant, seed in missing(rows_file, arguments.seeds):
        started = time.perf_counter()
        model = trained(config, variant, seed, training)
        figures = {test: measure(model, *prepared[test]) for test in tests}
        row = {
            "variant": name,
            "seed": seed,
            "figures": figures,
            "encoder": model.encoder.spec.fingerprint[:16],
            "seconds": round(time.perf_counter() - started, 1),
        }
        with rows_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        LOG.info("%s, seed %d: %s", name, seed, figures)
    write_table(rows_file, arguments)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data sets")
    parser.add_argument("--out", type=Path, default=Path("results/ablation"))
    parser.add_argument("--weights", required=True, help="image encoder; must not have seen the test sets")
    parser.add_argument("--train", nargs="+", default=["bsdata", "neu_seg", "crackforest", "busi", "lgg_mri"])
    parser.add_argument("--test", nargs="+", default=["aws_cookies", "mtd"])
    parser.add_argument("--choose", default="aws_cookies", help="the test set that decides the default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=256, help="side of the input in px")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--limit", type=int, default=200, help="training images of each set, evenly spread")
    parser.add_argument("--limit-test", type=int, default=400, help="test images of each set, evenly spread")
    return parser.parse_args()


def missing(rows_file: Path, seeds: Sequence[int]) -> Iterator[tuple[str, dict[str, object] | None, int]]:
    """Variants and seeds without a row, seed by seed; the untrained one has a single seed."""
    lines = rows_file.read_text(encoding="utf-8").splitlines() if rows_file.is_file() else []
    done = {(row["variant"], row["seed"]) for row in map(json.loads, lines)}
    for seed in seeds:
        for name, variant in VARIANTS.items():
            if (name, seed) not in done and (variant is not None or seed == seeds[0]):
                yield name, variant, seed


def trained(config: ModelConfig, variant: dict[str, object] | None, seed: int, samples: Sequence[Sample]) -> Model:
    """A variant's model after its last epoch; ``None`` is the untrained baseline."""
    if variant is None:
        return new_model(borrowing("dinov3_plain", config))
    out = Path(tempfile.mkdtemp())
    try:
        return train(new_model(config.with_settings(variant | {"train.seed": seed})), samples, out, RunOptions())
    finally:
        shutil.rmtree(out)


def prepare(config: ModelConfig, samples: Sequence[Sample]) -> tuple[FeatureStore, TrainingSet]:
    """Cached features and masks of a test set."""
    encoder = load_backbone(config.encoder, stages=config.encoder_stages)
    keys = [file_hash(sample.image_path) for sample in samples]
    store = fill_cache(encoder, samples, keys, config, RunOptions())
    return store, read_training_set(samples, config.input.size)


def measure(model: Model, store: FeatureStore, data: TrainingSet) -> dict[str, float | None]:
    """Pixel AUROC, AP and F1-max over all pixels of the set at the input's size, and image AUROC."""
    maps, scores = [], []
    for start in range(0, len(data.keys), 16):
        keys = data.keys[start : start + 16]
        batch = model.head.score(store.load(keys), ["object"] * len(keys))
        maps += list(resize_map(batch.patch_map[:, None], data.size)[:, 0].numpy())
        scores += batch.image_score.tolist()
    masks = [data.mask(row).bool().numpy() for row in range(len(data.keys))]
    pixel = ranking_metrics(maps, masks)
    image = ranking_metrics(np.array(scores), np.array([sample.is_anomalous for sample in data.samples]))
    return {
        "pixel AUROC": pixel.auroc,
        "pixel AP": pixel.average_precision,
        "pixel F1-max": pixel.f1_max.value if pixel.f1_max else None,
        "image AUROC": image.auroc,
    }


def write_table(rows_file: Path, arguments: argparse.Namespace) -> None:
    """Mean and standard deviation over the seeds, in %."""
    rows = [json.loads(line) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    metrics = ["pixel AUROC", "pixel F1-max", "image AUROC"]
    heads = [f"{test} {metric}" for test in arguments.test for metric in metrics]
    lines = [
        f"Trained on {', '.join(arguments.train)} (at most {arguments.limit} images each), {arguments.epochs} epochs, "
        f"input {arguments.size} px, encoder {arguments.weights}, seeds {arguments.seeds}; "
        f"{arguments.choose} decides the default. Mean ± deviation over seeds, in %.",
        "",
        "| variant | " + " | ".join(heads) + " |",
        "|---" * (1 + len(heads)) + "|",
    ]
    for name in VARIANTS:
        mine = [row["figures"] for row in rows if row["variant"] == name]
        cells = [cell([figures[test][metric] for figures in mine]) for test in arguments.test for metric in metrics]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    write_text(rows_file.with_name("table.md"), "\n".join(lines))
    LOG.info("wrote %s", rows_file.with_name("table.md"))


def cell(values: Sequence[float | None]) -> str:
    """One cell of the table."""
    found = [100 * value for value in values if value is not None]
    if not found:
        return "n/a"
    return f"{np.mean(found):.1f} ± {np.std(found):.1f}" if len(found) > 1 else f"{found[0]:.1f}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
