"""Score images with Spark: a table of URIs in, a table of rows out, errors as rows.

    spark-submit recipes/cluster/spark.py LIST.parquet OUT.parquet [--model embedded]

LIST has a column ``image`` of paths or URIs that every executor can open. Each Python worker opens the model once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator

import pandas as pd
from pyspark.sql import SparkSession

from ad_dinov3 import RowScorer
from ad_dinov3.infer.opening import ModelSpec

SCHEMA = "image string, path string, decision string, score double, threshold double, regions string, error string"
_SCORERS: dict[str, RowScorer] = {}  # of this Python worker, which Spark uses again for other partitions


def score(batches: Iterator[pd.DataFrame], model: str) -> Iterator[pd.DataFrame]:
    """Rows of batches of images; regions as JSON."""
    scorer = _SCORERS.setdefault(model, RowScorer(ModelSpec(model)))
    for batch in batches:
        rows = [dataclasses.asdict(row) for row in scorer.rows(batch["image"])]
        table = pd.DataFrame(rows)[["image", "path", "decision", "score", "threshold", "regions", "error"]]
        table["regions"] = table["regions"].map(json.dumps)
        yield table


def main() -> None:
    """Read the list, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("list")
    parser.add_argument("out")
    parser.add_argument("--model", default="embedded")
    chosen = parser.parse_args()
    spark = SparkSession.builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", 64).getOrCreate()
    images = spark.read.parquet(chosen.list).select("image")
    rows = images.mapInPandas(lambda batches: score(batches, chosen.model), SCHEMA)
    rows.write.mode("overwrite").parquet(chosen.out)
    spark.stop()


if __name__ == "__main__":
    main()
