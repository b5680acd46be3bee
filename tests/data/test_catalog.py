"""Each data set of the catalog, read from a tree with its official shape; and the ways to name one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from official_trees import TREES, colondb, mvtec_ad, visa

from ad_dinov3.data.catalog import CATALOG, find_data_set, locate, open_data, read_data, search_roots
from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.masks import load_mask
from ad_dinov3.errors import DataError
from ad_dinov3.types import class_words


@pytest.mark.parametrize("tree", TREES)
def test_official_tree_gives_each_image_its_own_mask(tmp_path: Path, tree: str) -> None:
    name, make, normal = TREES[tree]
    truth = make(tmp_path)
    samples = read_data(f"{name}={tmp_path}")
    assert [sample.is_anomalous for sample in samples].count(False) == normal
    anomalous = {sample.image_path: sample for sample in samples if sample.is_anomalous}
    assert set(anomalous) == set(truth)
    for image, mask in truth.items():
        assert decode_image(image).shape == (*mask.shape, 3)
        np.testing.assert_array_equal(load_mask(anomalous[image]), mask)


@pytest.mark.parametrize("tree", TREES)
def test_classes_are_those_of_the_catalog_and_have_words(tmp_path: Path, tree: str) -> None:
    name, make, _ = TREES[tree]
    make(tmp_path)
    data = open_data(f"{name}={tmp_path}")
    found = {sample.class_name for sample in data.listing.samples}
    assert found <= set(CATALOG[name].classes)
    assert all(data.words[class_name].strip() for class_name in found)
    assert not data.listing.orphans


# totals as the data sets' papers and the zero-shot literature give them
@pytest.mark.parametrize(
    ("name", "normal", "anomalous"),
    [
        ("mvtec_ad", 467, 1258),
        ("visa", 962, 1200),
        ("btad", 451, 290),
        ("mpdd", 176, 282),
        ("isic", 0, 379),
        ("colondb", 0, 380),
        ("clinicdb", 0, 612),
        ("tn3k", 0, 614),
        ("kvasir_seg", 0, 1000),
    ],
)
def test_expected_counts_add_up_to_the_published_totals(name: str, normal: int, anomalous: int) -> None:
    rows = CATALOG[name].classes.values()
    assert (sum(row.normal or 0 for row in rows), sum(row.anomalous or 0 for row in rows)) == (normal, anomalous)


def test_every_row_is_complete() -> None:
    for name, data_set in CATALOG.items():
        assert data_set.homepage.startswith("http"), name
        assert data_set.licence
        assert data_set.citation
        assert data_set.folders
        assert data_set.classes
    assert len(CATALOG["real_iad"].classes) == 30
    assert CATALOG["mvtec_ad"].classes["metal_nut"].words == "metal nut"


def test_visa_reads_the_test_rows_and_the_table_beside_the_images(tmp_path: Path) -> None:
    visa(tmp_path / "VisA_20220922")
    (tmp_path / "VisA_20220922" / "split_csv").rename(tmp_path / "split_csv")
    for root in (tmp_path, tmp_path / "VisA_20220922"):
        counts = Counter((s.class_name, s.is_anomalous) for s in read_data(f"visa={root}"))
        assert counts == {(name, label): 2 for name in ("candle", "pipe_fryum") for label in (False, True)}


def test_visa_converted_to_mvtecs_shape_is_read_too(tmp_path: Path) -> None:
    truth = mvtec_ad(tmp_path)
    assert sum(sample.is_anomalous for sample in read_data(f"visa={tmp_path}")) == len(truth)


def test_visa_without_its_table_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="spot-diff"):
        read_data(f"visa={tmp_path}")


def test_a_named_set_is_found_below_the_roots(tmp_path: Path) -> None:
    (tmp_path / "a" / "CVC-ColonDB").mkdir(parents=True)  # a folder of the name with nothing in it
    colondb(tmp_path / "b" / "CVC-ColonDB")
    roots = [tmp_path / "a", tmp_path / "b"]
    assert locate("colondb", roots) == tmp_path / "b" / "CVC-ColonDB"
    assert len(read_data("colondb", roots)) == 3


def test_a_named_set_that_is_not_there_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"AD_DINOV3_DATA.*https://www.mvtec.com"):
        read_data("mvtec_ad", [tmp_path])


def test_search_roots_are_the_variable_then_the_working_folder(tmp_path: Path) -> None:
    roots = search_roots({"AD_DINOV3_DATA": "/x:/y"}, tmp_path)
    assert roots == [Path("/x"), Path("/y"), tmp_path / "data", tmp_path / "datasets"]


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    for wrong in ("mvtec", str(tmp_path / "gone")):
        with pytest.raises(DataError, match="mvtec_ad, visa, btad"):
            read_data(wrong, [])
    with pytest.raises(DataError, match="mvtec_ad"):
        find_data_set("mvtec")


def test_the_mask_rule_of_the_catalog_travels_with_the_samples(tmp_path: Path) -> None:
    colondb(tmp_path)
    assert {sample.mask_above for sample in read_data(f"colondb={tmp_path}")} == {127}


def test_words_are_written_as_people_write_them() -> None:
    assert class_words("metal_nut") == "metal nut"
    assert class_words("u-block") == "u block"
