"""Directory shapes -> samples: few shapes, described by values, serve all data sets.

Every reader returns a ``Listing`` and never stops at a pair that does not fit; whether that is an error or a line in a
report is the caller's choice.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ad_dinov3.data.masks import load_mask
from ad_dinov3.data.pairing import list_images, natural_key, pair_by_name
from ad_dinov3.errors import DataError
from ad_dinov3.types import Sample

__all__ = ["Layout", "Listing", "Tree", "folder_pairs", "list_folder", "list_pairs", "list_tree", "list_visa"]
__all__ += ["load_mask", "read_folder", "tree"]

_NORMAL_FOLDERS = frozenset({"good", "ok", "normal"})
_MAX_SHOWN = 5


@dataclass(frozen=True)
class Listing:
    """The samples of a data set and what did not fit.

    Attributes:
        samples: ordered by class, defect and name (natural order).
        problems: one line per image that has no usable mask; names both paths.
        orphans: masks that no image claims.
    """

    samples: tuple[Sample, ...]
    problems: tuple[str, ...] = ()
    orphans: tuple[Path, ...] = ()

    def complete(self) -> list[Sample]:
        """The samples, if nothing is wrong.

        Raises:
            DataError: at least one image has no usable mask; the first few are named.
        """
        if self.problems:
            shown = "\n  ".join(self.problems[:_MAX_SHOWN])
            more = f"\n  and {len(self.problems) - _MAX_SHOWN} more" if len(self.problems) > _MAX_SHOWN else ""
            raise DataError(
                f"{len(self.problems)} images have no usable mask (--skip-bad leaves them out):\n  {shown}{more}"
            )
        return list(self.samples)


Layout = Callable[[Path], Listing]


@dataclass(frozen=True)
class Tree:
    """The shape ``<class>/<test>/<defect>/x.png`` with ``<class>/<ground_truth>/<defect>/x_mask.png``."""

    test: str = "test"
    ground_truth: str = "ground_truth"


def read_folder(root: Path) -> list[Sample]:
    """Samples of an MVTec-style folder: a root of classes, or one class.

    Raises:
        DataError: the folder has another shape, or an anomalous image has no mask of its name.
    """
    return list_folder(root).complete()


def list_folder(root: Path) -> Listing:
    """Listing of an MVTec-style folder: a root of classes, or one class; normal folders are good, ok or normal."""
    return list_tree(root, Tree())


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
            f"expected {root}/<class>/{shape.test}/<defect>/ with images, {_seen(root)}; "
            "`ad-dinov3 datasets show NAME` prints the shape of each data set"
        )
    return _joined([_list_class(folder, shape) for folder in classes])


def _list_class(folder: Path, shape: Tree) -> Listing:
    samples: list[Sample] = []
    problems: list[str] = []
    orphans: list[Path] = []
    class_name = folder.resolve().name
    for defect in _folders(folder / shape.test):
        if defect == folder / shape.ground_truth:
            continue  # MVTec AD 2 keeps its masks below the test folder
        if defect.name.lower() in _NORMAL_FOLDERS:
            samples += [Sample(image, None, class_name, False) for image in list_images(defect)]
            continue
        mask_folder = folder / shape.ground_truth / defect.name
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
    raise DataError(f"expected {wanted} in {root}, {_seen(root)}")


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
            f"expected split_csv/1cls.csv in {root} or beside it, {_seen(root)}; it comes with VisA's archive "
            "and with the repository amazon-science/spot-diff"
        )
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = {"object", "split", "label", "image", "mask"} - set(reader.fieldnames or ())
        if missing:
            raise DataError(f"{table}: expected the columns object, split, label, image, mask; missing {missing}")
        rows = [row for row in reader if row["split"] == "test"]
    return _visa_samples(rows, roots)


def _visa_samples(rows: list[dict[str, str]], roots: list[Path]) -> Listing:
    samples: list[Sample] = []
    problems: list[str] = []
    for row in rows:
        root = next((folder for folder in roots if (folder / row["image"]).is_file()), roots[0])
        image, mask = root / row["image"], root / row["mask"] if row["mask"] else None
        is_anomalous = row["label"] != "normal"
        if not image.is_file() or (is_anomalous and (mask is None or not mask.is_file())):
            problems.append(f"{image}: the image or its mask {mask} is not there")
            continue
        defect = "anomaly" if is_anomalous else "good"
        samples.append(Sample(image, mask if is_anomalous else None, row["object"], is_anomalous, defect))
    return Listing(tuple(samples), tuple(problems))


def _joined(listings: list[Listing]) -> Listing:
    return Listing(
        tuple(sample for listing in listings for sample in listing.samples),
        tuple(problem for listing in listings for problem in listing.problems),
        tuple(orphan for listing in listings for orphan in listing.orphans),
    )


def _folders(root: Path) -> list[Path]:
    try:
        found = [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{root}: {error.strerror or error}; expected a folder of a data set") from error
    return sorted(found, key=lambda folder: natural_key(folder.name))


def _seen(root: Path) -> str:
    if not root.is_dir():
        return "which is not a folder" if root.exists() else "which does not exist"
    names = sorted(entry.name for entry in root.iterdir())
    return f"found {', '.join(names[:8])}{' and more' if len(names) > 8 else ''}" if names else "which is empty"
