"""A file of JSON lines that survives a kill and never rewrites what is not its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from ad_dinov3.errors import DataError
from ad_dinov3.predict.journal import Journal


@dataclass(frozen=True)
class Entry:
    image: str
    score: float


def test_entries_come_back_by_name_and_in_natural_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "rows.jsonl", Entry)
    for image in ("10.png", "9.png", "1.png"):
        journal.append(Entry(image, 0.5))
    assert [entry.image for entry in journal] == ["1.png", "9.png", "10.png"]
    assert journal.get("9.png") == Entry("9.png", 0.5)
    assert journal.get("absent.png") is None


def test_the_last_entry_of_an_image_counts_and_closing_keeps_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    journal = Journal(path, Entry)
    for score in (0.1, 0.2, 0.3):
        journal.append(Entry("a.png", score))
    assert path.read_text().count("\n") == 3
    assert journal.get("a.png") == Entry("a.png", 0.3)
    journal.close()
    assert path.read_text().count("\n") == 1
    assert list(Journal(path, Entry)) == [Entry("a.png", 0.3)]


@pytest.mark.parametrize("kept", range(1, 30, 4))
def test_a_line_that_a_kill_cut_short_is_dropped_and_the_next_one_is_whole(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "rows.jsonl"
    journal = Journal(path, Entry)
    journal.append(Entry("a.png", 0.1))
    whole = path.read_bytes()
    path.write_bytes(whole + whole.replace(b"a.png", b"b.png")[:kept].rstrip(b"\n"))
    again = Journal(path, Entry)
    assert [entry.image for entry in again] == ["a.png"]
    again.append(Entry("c.png", 0.2))
    assert [entry.image for entry in Journal(path, Entry)] == ["a.png", "c.png"]


def test_a_line_of_something_else_is_refused_with_its_number_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    text = '{"image": "a.png", "score": 0.1}\n{"other": 1}\n'
    path.write_text(text)
    with pytest.raises(DataError, match=r"rows\.jsonl: line 2 .*--overwrite"):
        Journal(path, Entry)
    assert path.read_text() == text


def test_threads_may_append_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    journal = Journal(path, Entry)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: journal.append(Entry(f"{index}.png", index / 1000)), range(400)))
    found = list(journal)
    assert [entry.image for entry in found] == [f"{index}.png" for index in range(400)]
    assert all(journal.get(entry.image) == entry for entry in found)


def test_an_entry_is_on_disk_before_the_journal_is_closed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "rows.jsonl", Entry)
    journal.append(Entry("größer\n.png", 0.25))
    assert list(Journal(tmp_path / "rows.jsonl", Entry)) == [Entry("größer\n.png", 0.25)]
