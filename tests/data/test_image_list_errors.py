"""What is said of a list of images that has another form than expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from ad_dinov3.data.image_list import read_image_list
from ad_dinov3.errors import DataError


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "Filename,batch\nx.png,1\n", "row 1: .* column image; the row has Filename, batch"),
        ("b.csv", "image;batch\nx.png;1\n", "row 1: .* the row has image;batch"),
        ("c.csv", "image,batch\nx.png,1\n,2\n", "row 2: expected a path or URI in the column image$"),
        ("d.jsonl", '{"image": "x.png"}\n\n{"image"\n', "line 3 is no JSON: Expecting"),
        ("e.jsonl", "[1]\n", "the row has no columns"),
    ],
)
def test_a_row_without_an_image_is_refused_by_its_place_and_its_columns(
    name: str, text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"{name}.*{said}"):
        list(read_image_list(str(tmp_path / name)))


def test_a_parquet_file_without_images_is_refused_by_its_columns(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"img": ["x.png"], "n": [1]})
    parquet.write_table(table, tmp_path / "list.parquet")
    with pytest.raises(DataError, match="column image; the row has img, n"):
        list(read_image_list(str(tmp_path / "list.parquet")))
