from __future__ import annotations

import json
import re
from html.parser import HTMLParser

from ad_dinov3.report.page import Entry, Note, Report, render_report

PHOTO = "aGVsbG8="


class Page(HTMLParser):
    """Collects tags with their attributes, and checks that they close."""

    VOID = frozenset({"meta", "img", "input", "br", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def find(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag and wanted.items() <= attrs.items()]


def entry(name: str, score: float, picture: bool = True, class_name: str = "nut") -> Entry:
    notes = (Note("spot-like, centre", 12, score),)
    photo = PHOTO if picture else None
    return Entry(name, class_name, score, notes, 1, 640, 480, f"overlays/{name}.jpg", photo, photo)


def report(*entries: Entry, failures: tuple[tuple[str, str], ...] = ()) -> Report:
    return Report("Line 3", 0.5, entries, failures, [one.score for one in entries], [("Model", "m")])


def test_the_page_is_whole_and_needs_nothing_beside_it() -> None:
    text = render_report(report(entry("a.png", 0.9), entry("b.png", 0.1, picture=False)))
    page = Page(text)
    assert page.open == []
    assert not [attrs for tag, attrs in page.tags if tag in {"link", "iframe"} or (tag == "script" and "src" in attrs)]
    sources = [attrs["src"] or "" for attrs in page.find("img") if "src" in attrs]
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert "http" not in re.sub(r"https?://www\.w3\.org", "", text)


def test_every_id_that_the_script_asks_for_is_there() -> None:
    text = render_report(report(entry("a.png", 0.9)))
    ids = {attrs["id"] for _, attrs in Page(text).tags if "id" in attrs}
    assert set(re.findall(r'byId\("([\w-]+)"\)', text)) <= ids


def test_words_from_outside_cannot_become_markup() -> None:
    evil = '"><img src=x onerror=alert(1)>'
    text = render_report(report(entry(evil, 0.9, class_name=evil), failures=((evil, evil),)))
    assert "<img src=x" not in text
    assert not [attrs for _, attrs in Page(text).tags if "onerror" in attrs]


def test_decisions_before_any_script_are_those_of_the_threshold() -> None:
    page = Page(render_report(report(entry("a.png", 0.9), entry("b.png", 0.5), entry("c.png", 0.2))))
    cards = [attrs["class"] for attrs in page.find("article")]
    assert cards == ["card bad", "card bad", "card"]


def test_the_histogram_counts_images_beyond_the_listed_ones() -> None:
    some = report(entry("a.png", 0.9), entry("b.png", 0.1, picture=False))
    text = render_report(Report(some.title, 0.5, some.entries, (), [0.9, 0.1, 0.05], ()))
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    parsed = json.loads(data)
    assert (parsed["scores"], len(parsed["colours"]), parsed["threshold"]) == ([0.05, 0.1, 0.9], 256, 0.5)
    assert "1 more images are in results.csv" in text


def test_a_page_without_images_still_lists_what_failed() -> None:
    page = render_report(report(failures=(("a.png", "the file is empty"),)))
    assert Page(page).open == []
    assert "the file is empty" in page


def test_the_slider_s_command_is_there_and_its_names_are_escaped() -> None:
    report = Report("t", 0.5, [], [], [0.2], [], command="ad-dinov3 predict 'a \"b\"' -o out")
    page = render_report(report)
    assert 'data-command="ad-dinov3 predict &#39;a &#34;b&#34;&#39; -o out"' in page
