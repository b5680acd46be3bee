"""What a reader of data sets found, and how its limits and refusals read."""

from __future__ import annotations

from pathlib import Path

import pytest

from ad_dinov3.data.listing import Listing, collected, folder_contents, joined, listed_sample, spread
from ad_dinov3.errors import DataError
from ad_dinov3.types import Sample


def _normal(name: str) -> Sample:
    return Sample(Path(name), None, "nut", False)


def _bare(name: str) -> Sample:
    return Sample(Path(name), None, "nut", True, "cut")


@pytest.mark.parametrize(("total", "limit"), [(10, 3), (10, 10), (7, 5), (1000, 13), (2, 1)])
def test_a_limit_takes_that_many_without_repetition_in_order_and_with_gaps_that_differ_by_one(
    total: int, limit: int
) -> None:
    samples = [_normal(f"{index:04}.png") for index in range(total)]
    chosen = spread(samples, limit)
    places = [samples.index(sample) for sample in chosen]
    gaps = {second - first for first, second in zip(places, [*places[1:], total], strict=True)}
    assert len(set(places)) == limit
    assert places == sorted(places)
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("limit", [None, 3, 99])
def test_a_limit_that_is_not_reached_changes_nothing(limit: int | None) -> None:
    samples = [_normal(name) for name in "abc"]
    assert spread(samples, limit) == samples


def test_what_is_complete_comes_back_and_a_missing_mask_is_refused_by_name() -> None:
    assert Listing((_normal("a.png"),)).complete() == [_normal("a.png")]
    with pytest.raises(DataError, match=r"1 anomalous images have none, such as b\.png"):
        Listing((_normal("a.png"), _bare("b.png"))).complete()


def test_many_problems_are_counted_and_five_are_shown() -> None:
    problems = tuple(f"image {index} does not fit" for index in range(8))
    with pytest.raises(DataError) as refusal:
        Listing((), problems).complete()
    said = str(refusal.value)
    assert said.startswith("8 images do not fit")
    assert [problem in said for problem in problems] == [True] * 5 + [False] * 3
    assert said.endswith("and 3 more")


def test_where_masks_are_required_a_bare_anomaly_is_a_problem_and_no_sample() -> None:
    listing = Listing((_normal("a.png"), _bare("b.png")), ("c.png: broken",)).requiring_masks()
    assert listing.samples == (_normal("a.png"),)
    assert listing.problems == ("c.png: broken", "b.png: anomalous, and there is no mask for it")


def test_listings_are_joined_in_their_order() -> None:
    one, two = collected([_normal("a.png"), "problem 1"]), collected(["problem 2", _bare("b.png")])
    both = joined([one, two])
    assert both.samples == (_normal("a.png"), _bare("b.png"))
    assert both.problems == ("problem 1", "problem 2")
    assert both.without_masks == [_bare("b.png")]


def test_a_line_of_a_table_becomes_a_sample_or_says_which_file_is_not_there(tmp_path: Path) -> None:
    image, mask = tmp_path / "a.png", tmp_path / "a_mask.png"
    assert "the image is not there" in str(listed_sample(image, mask, "nut", "cut"))
    image.touch()
    assert f"its mask is not there ({mask})" in str(listed_sample(image, mask, "nut", "cut"))
    assert "its mask is not there (None)" in str(listed_sample(image, None, "nut", "cut"))
    mask.touch()
    assert listed_sample(image, mask, "nut", "cut") == Sample(image, mask, "nut", True, "cut")
    assert listed_sample(image, mask, "nut", None) == Sample(image, None, "nut", False)


def test_the_contents_of_a_folder_end_a_message(tmp_path: Path) -> None:
    assert folder_contents(tmp_path / "absent") == "which does not exist"
    assert folder_contents(tmp_path) == "which is empty"
    for index in range(10):
        (tmp_path / f"{index}.png").touch()
    assert folder_contents(tmp_path / "0.png") == "which is not a folder"
    found = folder_contents(tmp_path)
    assert found.startswith("found 0.png, 1.png")
    assert found.endswith("7.png and more")
