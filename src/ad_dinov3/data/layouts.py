"""Directory shapes -> samples: few shapes, described by values, serve all data sets.

Every reader returns a ``Listing`` and never stops at a pair that does not fit; whether that is an error or a line in a
report is the caller's choice.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ad_dinov3.data.labels import GROUND_TRUTH, NORMAL_WORDS, folder_labels
from ad_dinov3.data.listing import Listing, collected, folder_contents, joined, listed_sample
from ad_dinov3.data.pairing import list_images, natural_key, pair_by_name
from ad_dinov3.errors import DataError
from ad_dinov3.types import Sample

__all__ = [
    "Layout",
    "Listing",
    "Tree",
    "any_of",
    "folder_pairs",
    "list_folder",
    "list_labelled",
    "list_pairs",
    "list_tree",
    "list_visa",
    "read_folder",
    "tree",
]

Layout = Callable[[Path], Listing]


@dataclass(frozen=True)
class Tree:
    """The shape ``<class>/<test>/<defect>/x.png`` with ``<class>/<ground_truth>/<defect>/x_mask.png``."""

    test: str = "test"
    ground_truth: str = GROUND_TRUTH


def any_of(*layouts: Layout) -> Layout:
    """The first of several layouts that fits; if none does, the first one's error."""

    def read(root: Path) -> Listing:
        errors: list[DataError] = []
        for layout in layouts:
            try:
                return layout(root)
            except DataError as error:
                errors.append(error)
        raise errors[0]

    return read


def read_folder(root: Path) -> list[Sample]:
    """Samples of an MVTec-style folder: a root of classes, or one class.

    Raises:
        DataError: the folder has another shape, or an anomalous image has no mask of its name.
    """
    return list_folder(root).complete()


def list_folder(root: Path) -> Listing:
    """Listing of a folder of one's own, an MVTec-style tree or folders named by label: a root of classes, or one class.

    Raises:
        DataError: it has neither shape.
    """
    return any_of(tree(Tree.test, Tree.ground_truth), list_labelled)(root)


def list_labelled(root: Path) -> Listing:
    """Listing of ``<class>/<label>/x.jpg`` without a test folder, by the rule of `ad_dinov3.data.labels`.

    Raises:
        DataError: no folder is named by a label.
    """
    classes = [folder for folder in (root, *_folders(root)) if folder_labels(_folders(folder))]
    if not classes:
        raise DataError(f"expected folders named by label in {root}, such as good and crack, {folder_contents(root)}")
    return joined([_list_class(folder, Tree(".")) for folder in (classes[:1] if classes[0] == root else classes)])


def tree(test: str, ground_truth: str) -> Layout:
    """The layout of MVTec-style folders with other names for their two halves."""
    return lambda root: list_tree(root, Tree(test, ground_truth))


def list_tree(root: Path, shape: Tree) -> Listing:
    """Listing of all classes below ``root``, or of ``root`` itself if it is one.

    Raises:
        DataError: no class is there.
    """
    classes = [root] if (root / shape.test).is_dir() else [d for d in _folders(root) if (d / shape.test).is_dir()]
    if not classes:
        raise DataError(
            f"expected {root}/<class>/{shape.test}/<defect>/ with images, or folders named by label such as good and "
            f"crack, {folder_contents(root)}; `ad-dinov3 datasets show NAME` prints the shape of each data set"
        )
    return joined([_list_class(folder, shape) for folder in classes])


def _list_class(folder: Path, shape: Tree) -> Listing:
    samples: list[Sample] = []
    problems: list[str] = []
    orphans: list[Path] = []
    class_name = folder.resolve().name
    truth = folder / shape.ground_truth
    defects = [defect for defect in _folders(folder / shape.test) if defect != truth]
    if folder / shape.test == folder:
        defects = list(folder_labels(defects))
    for defect in defects:
        if defect.name.casefold() in NORMAL_WORDS:
            samples += [Sample(image, None, class_name, False) for image in list_images(defect)]
            continue
        if not truth.is_dir():  # only labels are known of this class
            samples += [Sample(image, None, class_name, True, defect.name) for image in list_images(defect)]
            continue
        mask_folder = truth / defect.name
        masks = list_images(mask_folder) if mask_folder.is_dir() else []
        pairing = pair_by_name(list_images(defect), masks, mask_folder)
        samples += [Sample(image, mask, class_name, True, defect.name) for image, mask in pairing.pairs.items()]
        problems += pairing.problems
        orphans += pairing.orphans
    return Listing(tuple(samples), tuple(problems), tuple(orphans))


def folder_pairs(class_name: str, *folders: tuple[str, str]) -> Layout:
    """The layout of one folder of images beside one of masks, under any of several (images, masks) names."""
    return lambda root: list_pairs(root, class_name, folders)


def list_pairs(root: Path, class_name: str, folders: tuple[tuple[str, str], ...]) -> Listing:
    """Listing of the first (images, masks) folders that exist below ``root``; every image is anomalous.

    Raises:
        DataError: none of the folders is there.
    """
    for images_name, masks_name in folders:
        images, masks = root / images_name, root / masks_name
        if images.is_dir() and masks.is_dir():
            pairing = pair_by_name(list_images(images), list_images(masks), masks)
            samples = [Sample(image, mask, class_name, True, "anomaly") for image, mask in pairing.pairs.items()]
            return Listing(tuple(samples), pairing.problems, pairing.orphans)
    wanted = " or ".join(f"{images}/ and {masks}/" for images, masks in folders)
    raise DataError(f"expected {wanted} in {root}, {folder_contents(root)}")


def list_visa(root: Path) -> Listing:
    """Listing of VisA's official tree by its own table ``split_csv/1cls.csv``, of which the test rows count.

    Raises:
        DataError: the table or one of its columns is not there.
    """
    roots = [root, root / "VisA_20220922"]
    tables = [folder / "split_csv" / "1cls.csv" for folder in (*roots, root.parent)]
    table = next((path for path in tables if path.is_file()), None)
    if table is None:
        raise DataError(
            f"expected split_csv/1cls.csv in {root} or beside it, {folder_contents(root)}; "
            "it comes with VisA's archive and with the repository amazon-science/spot-diff"
        )
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = {"object", "split", "label", "image", "mask"} - set(reader.fieldnames or ())
        if missing:
            raise DataError(f"{table}: expected the columns object, split, label, image, mask; missing {missing}")
        return collected(_visa_sample(row, roots) for row in reader if row["split"] == "test")


def _visa_sample(row: dict[str, str], roots: list[Path]) -> Sample | str:
    root = next((folder for folder in roots if (folder / row["image"]).is_file()), roots[0])
    mask = root / row["mask"] if row["mask"] else None
    return listed_sample(root / row["image"], mask, row["object"], None if row["label"] == "normal" else "anomaly")


def _folders(root: Path) -> list[Path]:
    try:
        found = [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{root}: {error.strerror or error}; expected a folder of a data set") from error
    return sorted(found, key=lambda folder: natural_key(folder.name))
