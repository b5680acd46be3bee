"""Score images with Dask: a list of URIs in, Parquet parts out, errors as rows.

    python recipes/cluster/dask_bag.py LIST.csv OUT [--model embedded] [--partition 64]

LIST has a column ``image`` of paths or URIs that every worker can open. Without a Dask scheduler (``dask.distributed``)
it runs in processes of this machine; a worker process opens the model once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import dask
import dask.bag
import pandas as pd

from ad_dinov3 import RowScorer
from ad_dinov3.infer.opening import ModelSpec

COLUMNS = ("image", "path", "decision", "score", "threshold", "regions", "error")
_SCORERS: dict[str, RowScorer] = {}  # of this worker process


def score(images: Iterable[str], model: str) -> list[dict[str, object]]:
    """Rows of one partition; regions as JSON."""
    scorer = _SCORERS.setdefault(model, RowScorer(ModelSpec(model)))
    rows = [dataclasses.asdict(row) for row in scorer.rows(images)]
    return [{column: row[column] for column in COLUMNS} | {"regions": json.dumps(row["regions"])} for row in rows]


def main() -> None:
    """Read the list, score, write one Parquet file a partition."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("list")
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--partition", type=int, default=64)
    chosen = parser.parse_args()
    images = pd.read_csv(chosen.list)["image"].tolist()
    bag = dask.bag.from_sequence(images, partition_size=chosen.partition)
    parts = bag.map_partitions(score, model=chosen.model).to_delayed()
    chosen.out.mkdir(parents=True, exist_ok=True)
    writes = [dask.delayed(write)(part, str(chosen.out / f"{n:06d}.parquet")) for n, part in enumerate(parts)]
    dask.compute(*writes, scheduler="processes", num_workers=2)


def write(rows: list[dict[str, object]], path: str) -> None:
    """One partition's rows."""
    pd.DataFrame(rows).astype({"error": "string"}).to_parquet(path)  # a part without errors has the type, too


if __name__ == "__main__":
    main()
