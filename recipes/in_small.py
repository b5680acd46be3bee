"""The paper's questions on small public sets: trained on some, measured on others that the model never saw.

    python recipes/in_small.py --data ROOT --weights nano_rendered --out results/in_small

Below ROOT lie bsdata, neu_seg, crackforest, mtd, aws_cookies, busi and lgg_mri in MVTec AD's folder shape. Industrial
to industrial, industrial to medical, and each of two medical sets to the other; Tables 2 and 3 of the paper on all of
them, three seeds, the untrained and the classical baseline beside. Models, stored scores and all pictures go to
--work, and a second call goes on there; rows, tables, curves and the pictures that may be shared go to --out.
The backbone must not have seen the test sets.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from ad_dinov3.bench.figures import write_curves
from ad_dinov3.bench.paper_figures import figure1, figure3
from ad_dinov3.bench.plan import Plan, StudyOptions, plan_study
from ad_dinov3.bench.protocol import PROTOCOLS
from ad_dinov3.bench.reproduce import Reports, run_study
from ad_dinov3.bench.rows import MetricRow, write_metric_rows
from ad_dinov3.bench.run import Evaluation
from ad_dinov3.bench.studies import Route, Study, Variant
from ad_dinov3.bench.summary import describe_data, seed_summary
from ad_dinov3.files import replacing, write_text

LOG = logging.getLogger("in_small")
INDUSTRIAL = ("bsdata", "neu_seg", "crackforest")
ROUTES = (
    Route(INDUSTRIAL, ("mtd", "aws_cookies", "busi", "lgg_mri")),
    Route(("busi",), ("lgg_mri",)),
    Route(("lgg_mri",), ("busi",)),
)
SHAREABLE = ("aws_cookies",)  # CC BY-SA 4.0; the other test sets state no licence for their pictures
FULL = Variant("AD-DINOv3")
PLAIN = Variant("untrained baseline", "dinov3_plain")
ALONE = Variant("CMCL alone", changes={"method.loss.aacm": 0.0})
LAST = Variant("last stage", changes={"method.stages": "last"})
OWN = Variant(
    "preset default (not in the paper)",
    changes={
        "method.rarity": 24,
        "method.fusion": "logits",
        "method.gain": 10.0,
        "method.learned_gain": True,
        "method.loss.image": 0.25,
    },
)
CLASSICAL = Variant("mahalanobis, no training", "mahalanobis")
# What a backbone without a text encoder and a set of a few hundred images need; the rest is the preset `paper`.
SETTINGS: dict[str, object] = {
    "method.prompts.source": "learned",
    "input.height": 256,
    "input.width": 256,
    "method.width": 64,
    "train.learning_rate": 1e-3,
    "train.batch_size": 16,
    "train.epochs": 5,
    "method.loss.resolution": "mid",
}
PROTOCOL = replace(PROTOCOLS["paper"], name="paper at 256 px", size=(256, 256))
TABLES = {
    "Table 2 in small: the components": (PLAIN, ALONE, FULL),
    "Table 3 in small: the last stage against all": (LAST, FULL),
    "Beside them": (CLASSICAL, OWN),
}
METRICS = ("pixel_auroc", "pixel_f1_max", "pixel_aupro", "image_auroc")


def main() -> None:
    """Train and measure what is missing, then write rows, tables and pictures."""
    arguments = parsed()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = StudyOptions(
        arguments.work,
        changes=SETTINGS | {"encoder": arguments.weights},
        seeds=tuple(range(arguments.seeds)),
        protocol=PROTOCOL,
        limit=arguments.limit,
    )
    plan = plan_study(study_below(arguments.data), options)
    for need in plan.needs:
        if not need.is_there:
            LOG.warning("missing: %s (%s)", need.name, need.how)
    reports = Reports(step=LOG.info, evaluated=curve_writer(arguments.out / "curves"))
    rows = run_study(plan, options, reports)
    for old in ("rows.jsonl", "rows.parquet"):
        (arguments.out / old).unlink(missing_ok=True)
    write_metric_rows(arguments.out, rows)
    write_text(arguments.out / "tables.md", tables(plan, rows, arguments.limit))
    draw_figures(plan, options, arguments.out, reports)
    LOG.info("written: %s", arguments.out)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the seven data sets")
    parser.add_argument("--weights", required=True, help="image encoder: name, folder or file")
    parser.add_argument("--out", type=Path, default=Path("results/in_small"), help="what is published")
    parser.add_argument("--work", type=Path, default=Path("runs/in_small"), help="one folder for each --weights")
    parser.add_argument("--limit", type=int, default=160, help="images of each set, evenly spread")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each line")
    return parser.parse_args()


def study_below(root: Path) -> Study:
    """The routes with the sets' folders, and every line of the tables once."""
    routes = [
        Route(*(tuple(str(root / name) for name in names) for names in (route.train, route.test))) for route in ROUTES
    ]
    variants = tuple(dict.fromkeys(variant.label for lines in TABLES.values() for variant in lines))
    by_label = {variant.label: variant for lines in TABLES.values() for variant in lines}
    return Study("in_small", "In small", "", tuple(by_label[label] for label in variants), tuple(routes))


def tables(plan: Plan, rows: Sequence[MetricRow], limit: int) -> str:
    """Means over the seeds, a table for each question, under a heading that says what they are not."""
    encoder = next(row.model for row in rows if row.method == PLAIN.label)
    parts = [
        "# In small\n",
        "**Not the paper's data and not its backbone**: small public sets, and the encoder "
        f"`{encoder}` with learned prompts in place of text. None of these figures compares with the paper's tables; "
        "they show what the method's parts do where all of it can be repeated on one core. Maps and masks meet at "
        "256 x 256 px. Mean ± sample deviation over the seeds, in %; image AUROC is n/a without normal images.\n",
        describe_data(plan, limit),
    ]
    for title, variants in TABLES.items():
        labels = [variant.label for variant in variants]
        chosen = sorted((row for row in rows if row.method in labels), key=lambda row: placed(row, labels))
        parts.append(f"## {title}\n\n{seed_summary(chosen, METRICS)}")
    return "\n".join(parts)


def placed(row: MetricRow, labels: Sequence[str]) -> tuple[int, int]:
    """The order of a table: by test set, then as the lines are listed."""
    names = [name for route in ROUTES for name in route.test]
    return names.index(row.data), labels.index(row.method)


def curve_writer(folder: Path) -> Callable[[Evaluation], None]:
    """Draws the curves of the paper's method with its first seed."""

    def write(evaluation: Evaluation) -> None:
        row = evaluation.rows[0]
        if row.method == FULL.label and row.training_seed == 0:
            name = f"{'-'.join(row.trained_on)}-to-{row.data}"
            write_curves(evaluation.pooled, f"{row.method} on {row.data}", folder / name)

    return write


def draw_figures(plan: Plan, options: StudyOptions, out: Path, reports: Reports) -> None:
    """Figures 1 and 3 of every route and test set, with the paper's method alone."""
    for name, picture in pictures(plan, options, reports):
        save(picture, options.out / "figures" / f"{name}.png")
        if name.rpartition("-to-")[2] in SHAREABLE:
            save(picture, out / f"{name}.png")


def pictures(plan: Plan, options: StudyOptions, reports: Reports) -> Iterator[tuple[str, Image.Image]]:
    """Name and picture of each figure, route and test set."""
    for route in plan.routes:
        single = replace(plan, routes=(route,), variants=(FULL,))
        trained = "-".join(Path(name).name for name in route.train)
        for figure, draw in (("figure1", figure1), ("figure3", figure3)):
            for data, picture in draw(single, options, reports):
                yield f"{figure}-{trained}-to-{data}", picture


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture beside, then rename."""
    with replacing(path) as unfinished:
        picture.save(unfinished, "PNG")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
