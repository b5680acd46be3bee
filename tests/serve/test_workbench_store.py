"""workbench.sqlite: reviews that nothing loses, and that two processes see."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ad_dinov3.errors import DataError
from ad_dinov3.serve.workbench.store import FILE, Review, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


def test_the_last_word_on_an_image_counts(store: Store) -> None:
    store.add_review("first-id", "a.png", "ok")
    store.add_review("other-id", "b.png", "skip")
    store.add_review("second-id", "a.png", "ng")
    assert store.verdicts() == {"a.png": "ng", "b.png": "skip"}
    assert store.reviews()[-1] == Review("second-id", "a.png", "ng", "2026-01-02T03:04:05.000+00:00")


def test_taking_a_word_back_makes_the_one_before_count_again(store: Store) -> None:
    store.add_review("first-id", "a.png", "ok")
    store.add_review("second-id", "a.png", "ng")
    store.take_back("second-id")
    assert store.verdicts() == {"a.png": "ok"}
    store.take_back("first-id")
    store.take_back("never-said")
    assert store.verdicts() == {}


def test_a_review_that_is_sent_twice_counts_once(store: Store) -> None:
    store.add_review("first-id", "a.png", "ok")
    store.add_review("second-id", "a.png", "ng")
    store.add_review("first-id", "a.png", "ok")  # sent again because its answer was lost
    assert store.verdicts() == {"a.png": "ng"}


def test_every_change_moves_the_revision_for_every_process(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path)
    before = other.revision
    store.set("threshold", 0.25)
    assert other.revision == before + 1
    assert other.setting("threshold", None) == 0.25


def test_a_change_that_fails_halfway_leaves_nothing(store: Store) -> None:
    def half() -> None:
        with store.changing():
            store.add_review("first-id", "a.png", "ok")
            raise KeyError("power")

    with pytest.raises(KeyError):
        half()
    assert store.verdicts() == {}
    assert store.revision == 0


def test_a_verdict_that_is_none_is_refused_by_the_database(store: Store) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        store.add_review("first-id", "a.png", "perhaps")  # type: ignore[arg-type]


def test_what_was_answered_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ad_dinov3.serve.workbench.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "for number in range(1000):\n"
        "    store.add_review(f'review-{number}', f'{number}.png', 'ng')\n"
        "    print(number, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 20:
                os.kill(process.pid, signal.SIGKILL)
                break
        told = [int(line) for line in process.stdout.read().split()]
    kept = Store(tmp_path).verdicts()
    last = max([20, *told])
    assert {f"{number}.png" for number in range(last + 1)} <= kept.keys()


def test_a_file_of_another_kind_or_version_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    with pytest.raises(DataError, match=r"workbench\.sqlite: cannot be used"):
        Store(tmp_path)
    (tmp_path / FILE).unlink()
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(DataError, match="later version"):
        Store(tmp_path)


def test_a_file_of_the_first_version_gets_what_it_lacks_and_keeps_its_reviews(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as first:
        first.executescript(
            "CREATE TABLE reviews (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, image TEXT NOT "
            "NULL, verdict TEXT NOT NULL CHECK (verdict IN ('ok', 'ng', 'skip')), at TEXT NOT NULL);"
            "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);"
            "INSERT INTO reviews VALUES (1, 'first-id', 'a.png', 'ok', 'then'); PRAGMA user_version = 1"
        )
    first.close()
    store = Store(tmp_path)
    assert store.verdicts() == {"a.png": "ok"}
    store.set_good(["b.png", "a.png", "b.png"], True)
    store.set_good(["b.png"], False)
    assert store.good() == ("a.png",)
