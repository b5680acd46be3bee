"""What a command line names, as a stream: order, names, bad items that do not stop it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_dinov3.data.streams import ImageFile, find_images
from ad_dinov3.errors import ImageError, MissingExtraError


def picture(path: Path, level: int = 9) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (level, level, level)).save(path)
    return path


def names(*sources: object, stdin: str = "") -> list[str]:
    return [item.name for item in find_images([str(source) for source in sources], io.StringIO(stdin))]


def reason(item: ImageFile) -> str:
    with pytest.raises(ImageError) as caught:
        item.load_within(10**9)
    return caught.value.reason


def test_folder_is_read_recursively_in_natural_order_without_hidden_or_foreign_files(tmp_path: Path) -> None:
    for name in ("img10.png", "img2.PNG", "b/1.jpg", "b/c/1.webp", ".hidden.png", ".git/x.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert names(tmp_path) == ["b/1.jpg", "b/c/1.webp", "img2.PNG", "img10.png"]


def test_masks_of_a_data_set_are_no_images_and_other_folders_of_that_name_are(tmp_path: Path) -> None:
    for name in ("nut/test/pit/1.png", "nut/ground_truth/pit/1_mask.png", "photos/ground_truth/1.png"):
        picture(tmp_path / name)
    assert names(tmp_path) == ["nut/test/pit/1.png", "photos/ground_truth/1.png"]
    assert names(tmp_path / "nut" / "ground_truth") == ["pit/1_mask.png"]


def test_each_file_comes_once_in_the_order_named(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "b.png"), picture(tmp_path / "a.png")
    assert names(first, tmp_path, second) == ["b.png", "a.png"]


def test_names_are_unique_across_sources(tmp_path: Path) -> None:
    for folder in ("left", "right", "deep/right"):
        picture(tmp_path / folder / "x.png")
    found = names(tmp_path / "left", tmp_path / "right", tmp_path / "deep" / "right" / "x.png")
    assert found == ["x.png", "right/x.png", "x~2.png"]
    assert len(set(found)) == 3


def test_glob_matches_are_expanded_and_an_empty_one_is_a_bad_item(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/10.png", "b/2.png", "a/1.txt"):
        picture(tmp_path / name) if name.endswith("png") else (tmp_path / name).write_text("")
    assert names(tmp_path / "**" / "*.png") == ["1.png", "10.png", "2.png"]
    (item,) = find_images([str(tmp_path / "*.bmp")], io.StringIO())
    assert "no file matches" in reason(item)


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    picture(tmp_path / "x[1].png")
    picture(tmp_path / "x1.png")
    assert names(tmp_path / "x[1].png") == ["x[1].png"]


def test_dash_reads_one_source_per_line(tmp_path: Path) -> None:
    picture(tmp_path / "a b.png")
    picture(tmp_path / "sub" / "c.png")
    assert names("-", stdin=f"{tmp_path / 'a b.png'}\n\n{tmp_path / 'sub'}\n") == ["a b.png", "c.png"]


def test_a_missing_path_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = picture(tmp_path / "good.png", 40)
    missing, there = find_images([str(tmp_path / "gone.png"), str(good)], io.StringIO())
    assert "no such file" in reason(missing)
    np.testing.assert_array_equal(there.load_within(10**9).pixels, np.full((3, 4, 3), 40, np.uint8))


def test_a_dangling_link_is_reported_by_name(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    (item,) = find_images([str(tmp_path)], io.StringIO())
    assert item.name == "link.png"
    assert "points to nothing" in reason(item)


def test_an_unreadable_folder_is_reported_and_its_neighbours_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "locked" / "2.png")
    picture(tmp_path / "z.png")
    (tmp_path / "locked").chmod(0)
    if os.geteuid() == 0:  # permissions do not bind root
        real = os.scandir

        def refuse(folder: Path) -> object:
            if folder.name == "locked":
                raise PermissionError(13, "Permission denied")
            return real(folder)

        monkeypatch.setattr(os, "scandir", refuse)
    items = list(find_images([str(tmp_path)], io.StringIO()))
    (tmp_path / "locked").chmod(0o755)
    assert [item.name for item in items] == ["a/1.png", "locked", "z.png"]
    assert "Permission denied" in reason(items[1])


def test_links_that_lead_round_end(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert names(tmp_path) == ["a/1.png"]


def test_an_explicit_file_of_any_name_is_tried(tmp_path: Path) -> None:
    picture(tmp_path / "x.png").rename(tmp_path / "scan.dat")
    (item,) = find_images([str(tmp_path / "scan.dat")], io.StringIO())
    assert item.load_within(10**9).pixels.shape == (3, 4, 3)


def test_a_video_without_pyav_names_the_extra(tmp_path: Path) -> None:
    try:
        import av  # noqa: F401
    except ImportError:
        (tmp_path / "clip.mp4").write_bytes(b"")
        with pytest.raises(MissingExtraError, match=r"ad-dinov3\[video\]"):
            list(find_images([str(tmp_path / "clip.mp4")], io.StringIO()))


def test_a_video_gives_its_frames_and_a_broken_one_a_bad_item(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in (0, 120, 240):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    items = list(find_images([str(tmp_path / "clip.mp4")], io.StringIO()))
    assert [item.name for item in items] == [f"clip.mp4/00000{index}.png" for index in range(3)]
    assert [item.video_s for item in items] == pytest.approx([0, 0.2, 0.4])
    for item, level in zip(items, (0, 120, 240), strict=True):
        assert np.abs(item.load_within(10**9).pixels.astype(int) - level).max() <= 8
    (tmp_path / "text.mp4").write_text("not a video")
    (bad,) = find_images([str(tmp_path / "text.mp4")], io.StringIO())
    assert "cannot be decoded" in reason(bad)


def test_folders_of_links_to_the_next_are_each_visited_once(tmp_path: Path) -> None:
    for level in range(25):  # 2 to the 24 ways lead to the last one
        picture(tmp_path / str(level) / "1.png")
        for name in ("x", "y"):
            if level < 24:
                (tmp_path / str(level) / name).symlink_to(tmp_path / str(level + 1))
    assert names(tmp_path) == [f"{level}/1.png" for level in range(25)]
    assert len(names(tmp_path / "0")) == 25


def test_a_tree_deeper_than_pythons_stack_is_read(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(1200):
        folder = folder / "d"
        folder.mkdir()
    picture(folder / "1.png")
    found = names(tmp_path)
    (folder / "1.png").unlink()
    while folder != tmp_path:  # pytest's own cleaning is recursive
        folder.rmdir()
        folder = folder.parent
    assert found == ["d/" * 1200 + "1.png"]


def test_an_entry_that_cannot_be_looked_at_is_named_and_the_rest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "sub" / "b.png")
    picture(tmp_path / "z.png")

    class Entry:
        def __init__(self, name: str) -> None:
            self.name = name

        def is_dir(self) -> bool:
            raise PermissionError(13, "Permission denied")

    class Listed(list[object]):
        def __enter__(self) -> Listed:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    real = os.scandir
    listed = Listed([Entry("b.png")])
    monkeypatch.setattr(os, "scandir", lambda folder: listed if folder.name == "sub" else real(folder))
    items = list(find_images([str(tmp_path)], io.StringIO()))
    assert [item.name for item in items] == ["a.png", "sub/b.png", "z.png"]
    assert "no permission" in reason(items[1])


def test_a_name_that_is_not_utf8_gets_a_stated_form_and_is_read(tmp_path: Path) -> None:
    picture(tmp_path / "x.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.png"))
    (item,) = find_images([str(tmp_path)], io.StringIO())
    assert item.name == "bad\\xff.png"
    assert item.load_within(10**9).pixels.shape == (3, 4, 3)


def test_pipes_and_impossible_names_are_reported_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.mp4")
    os.mkfifo(tmp_path / "y.png")
    sources = [str(tmp_path / "x.mp4"), str(tmp_path / "y.png"), "n" * 300 + ".png", "zero\0byte.png"]
    assert [bool(reason(item)) for item in find_images(sources, io.StringIO())] == [True] * 4
