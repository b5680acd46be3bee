from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from ad_dinov3.report.chart import line_chart, scatter_chart

SVG = "{http://www.w3.org/2000/svg}"


def test_a_small_difference_in_accuracy_looks_small() -> None:
    points = {"torch": (37.3, 89.37), "fp32": (23.1, 89.37), "int8": (20.2, 89.51)}
    chart = ElementTree.fromstring(scatter_chart(points, "Accuracy", "ms", "%"))
    heights = [float(dot.attrib["cy"]) for dot in chart.iter(f"{SVG}circle")]
    assert max(heights) - min(heights) < 30  # of 400 px
    names = {text.text: float(text.attrib["y"]) for text in chart.iter(f"{SVG}text") if text.text in points}
    assert names.keys() == points.keys()
    assert min(abs(names[a] - names[b]) for a in names for b in names if a < b) >= 12


def test_a_large_difference_fills_the_chart() -> None:
    chart = ElementTree.fromstring(scatter_chart({"a": (1.0, 50.0), "b": (2.0, 90.0)}, "Accuracy", "ms", "%"))
    heights = [float(dot.attrib["cy"]) for dot in chart.iter(f"{SVG}circle")]
    assert max(heights) - min(heights) > 200


def test_points_that_are_not_finite_are_left_out_and_names_are_escaped() -> None:
    svg = line_chart({"<loss>": [(1.0, 2.0), (2.0, float("nan")), (3.0, 1.0)]}, "Loss", "epoch", "mean")
    line = next(ElementTree.fromstring(svg).iter(f"{SVG}polyline"))
    assert len(re.findall(r"[\d.]+,[\d.]+", line.attrib["points"])) == 2
    assert "&lt;loss&gt;" in svg


@pytest.mark.parametrize(("epochs", "shown"), [(1, "1 2"), (3, "1 2 3"), (10, "0 2 4 6 8 10")])
def test_epochs_on_the_axis_are_whole_numbers(epochs: int, shown: str) -> None:
    series = {"total": [(float(epoch), 1 / epoch) for epoch in range(1, epochs + 1)]}
    chart = ElementTree.fromstring(line_chart(series, "Loss", "epoch", "mean", whole_x=True))
    middle = [text.text or "" for text in chart.iter(f"{SVG}text") if text.attrib.get("text-anchor") == "middle"]
    assert [text for text in middle if text.replace(".", "").isdigit()] == shown.split()
