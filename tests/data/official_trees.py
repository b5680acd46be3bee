"""Small trees with the shape and quirks of the data sets as their authors distribute them.

Each maker writes below ``root`` and returns the pixels that are anomalous in each image, by the image's path.
"""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

Truth = dict[Path, NDArray[np.bool_]]
SIZE = (24, 36)


def draw(path: Path, seed: int, **options: object) -> NDArray[np.bool_]:
    """Write an image and return the mask that its ground truth should hold: a rectangle that depends on the seed."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, **options)
    mask = np.zeros(SIZE, np.bool_)
    top, left = rng.integers(2, 10), rng.integers(2, 16)
    mask[top : top + 8, left : left + 12] = True
    return mask


def write_mask(path: Path, mask: NDArray[np.bool_], value: int = 255, **options: object) -> None:
    """Write a mask whose anomalous pixels hold ``value``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * np.uint8(value)).save(path, **options)


def mvtec_ad(root: Path) -> Truth:
    """Grey images among colour ones; masks named NNN_mask.png."""
    truth: Truth = {}
    for class_index, class_name in enumerate(("bottle", "metal_nut")):
        folder = root / class_name
        draw(folder / "train" / "good" / "000.png", 1)
        for number in range(2):
            draw(folder / "test" / "good" / f"{number:03d}.png", number)
        for defect in ("scratch", "bent"):
            for number in (0, 1, 10):
                image = folder / "test" / defect / f"{number:03d}.png"
                truth[image] = draw(image, 10 * class_index + number)
                write_mask(folder / "ground_truth" / defect / f"{number:03d}_mask.png", truth[image])
    Image.open(root / "bottle/test/bent/000.png").convert("L").save(root / "bottle/test/bent/000.png")
    return truth


def visa(root: Path) -> Truth:
    """The split as a table beside the classes; upper-case JPG; masks that hold small class numbers."""
    truth: Truth = {}
    rows = []
    for class_name in ("candle", "pipe_fryum"):
        for number in range(3):
            name = f"{class_name}/Data/Images/Normal/{number:04d}.JPG"
            draw(root / name, number, format="JPEG")
            rows.append([class_name, "train" if number == 0 else "test", "normal", name, ""])
        for number in range(2):
            name = f"{class_name}/Data/Images/Anomaly/{number:03d}.JPG"
            mask = f"{class_name}/Data/Masks/Anomaly/{number:03d}.png"
            truth[root / name] = draw(root / name, 20 + number, format="JPEG")
            write_mask(root / mask, truth[root / name], value=1 + number)
            rows.append([class_name, "test", "anomaly", name, mask])
    table = root / "split_csv" / "1cls.csv"
    table.parent.mkdir()
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["object", "split", "label", "image", "mask"], *rows])
    return truth


def btad(root: Path) -> Truth:
    """Folders ok and ko; images bmp, png, bmp and masks png, png, bmp."""
    truth: Truth = {}
    for class_name, image_suffix, mask_suffix in (("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")):
        draw(root / class_name / "test" / "ok" / f"0000.{image_suffix}", 1)
        for number in (1, 2):
            image = root / class_name / "test" / "ko" / f"{number:04d}.{image_suffix}"
            truth[image] = draw(image, number)
            write_mask(root / class_name / "ground_truth" / "ko" / f"{number:04d}.{mask_suffix}", truth[image])
    return truth


def mpdd(root: Path) -> Truth:
    """MVTec AD's shape with other classes."""
    truth: Truth = {}
    for class_name, defect in (("bracket_black", "hole"), ("tubes", "anomalous")):
        draw(root / class_name / "test" / "good" / "000.png", 1)
        image = root / class_name / "test" / defect / "003.png"
        truth[image] = draw(image, 3)
        write_mask(root / class_name / "ground_truth" / defect / "003_mask.png", truth[image])
    return truth


def isic(root: Path) -> Truth:
    """Two folders; masks named *_Segmentation.png."""
    truth: Truth = {}
    for number in (3, 12, 100):
        image = root / "ISBI2016_ISIC_Part1_Test_Data" / f"ISIC_{number:07d}.jpg"
        truth[image] = draw(image, number)
        write_mask(root / "ISBI2016_ISIC_Part1_Test_GroundTruth" / f"ISIC_{number:07d}_Segmentation.png", truth[image])
    return truth


def colondb(root: Path) -> Truth:
    """Names that are not zero-padded: in the order of text, 10 comes before 2."""
    truth: Truth = {}
    for number in (1, 2, 10):
        image = root / "images" / f"{number}.png"
        truth[image] = draw(image, number)
        write_mask(root / "masks" / f"{number}.png", truth[image])
    return truth


def clinicdb_png(root: Path) -> Truth:
    """The figshare copy."""
    return colondb(root)


def clinicdb_tiff(root: Path) -> Truth:
    """The authors' TIFFs: RGB whose photometric tag says otherwise, so that Pillow cannot open them."""
    truth: Truth = {}
    for number in (1, 2):
        image = root / "Original" / f"{number}.tif"
        mask = draw(image.with_suffix(".png"), number)
        pixels = np.asarray(Image.open(image.with_suffix(".png")))
        image.with_suffix(".png").unlink()
        image.write_bytes(_mislabelled(pixels))
        truth[image] = mask
        write_mask(root / "Ground Truth" / f"{number}.tif", mask)
    return truth


def tn3k(root: Path) -> Truth:
    """JPEG masks with compression noise; a training part that must not be read."""
    truth: Truth = {}
    draw(root / "trainval-image" / "0000.jpg", 0)
    for number in range(2):
        image = root / "test-image" / f"{number:04d}.jpg"
        truth[image] = draw(image, number)
        write_mask(root / "test-mask" / f"{number:04d}.jpg", truth[image], quality=75)
    return truth


def mvtec_ad_2(root: Path) -> Truth:
    """Ground truth below the test folder; private test images without labels."""
    truth: Truth = {}
    for class_name in ("can", "sheet_metal"):
        test = root / class_name / "test_public"
        draw(test / "good" / "000_regular.png", 1)
        draw(root / class_name / "test_private" / "000_regular.png", 2)
        image = test / "bad" / "001_overexposed.png"
        truth[image] = draw(image, 3)
        write_mask(test / "ground_truth" / "bad" / "001_overexposed_mask.png", truth[image])
    return truth


def real_iad(root: Path) -> Truth:
    """Splits as JSON; masks beside the images."""
    truth: Truth = {}
    for class_name in ("audiojack", "usb"):
        entries = []
        good = f"OK/S0001/{class_name}_0001_OK_C1_20230922.jpg"
        draw(root / "realiad_1024" / class_name / good, 1)
        entries.append({"category": class_name, "anomaly_class": "OK", "image_path": good, "mask_path": None})
        bad = f"NG/HS/S0001/{class_name}_0001_NG_HS_C1_20230922.jpg"
        image = root / "realiad_1024" / class_name / bad
        truth[image] = draw(image, 2)
        write_mask(image.with_suffix(".png"), truth[image])
        mask = str(Path(bad).with_suffix(".png"))
        entries.append({"category": class_name, "anomaly_class": "HS", "image_path": bad, "mask_path": mask})
        table = root / "realiad_jsons" / "realiad_jsons" / f"{class_name}.json"
        table.parent.mkdir(parents=True, exist_ok=True)
        meta = {"normal_class": "OK", "prefix": f"{class_name}/"}
        table.write_text(json.dumps({"meta": meta, "train": [], "test": entries}))
    return truth


def kvasir_seg(root: Path) -> Truth:
    """JPEG masks of the images' names, and a file of boxes between the folders."""
    truth: Truth = {}
    for name in ("cju0qkwl35piu0993l0dewei2", "cju0qoxqj9q6s0835b43399p4"):
        image = root / "images" / f"{name}.jpg"
        truth[image] = draw(image, len(truth))
        write_mask(root / "masks" / f"{name}.jpg", truth[image])
    (root / "kavsir_bboxes.json").write_text("{}")
    return truth


def _mislabelled(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="rgb", metadata=None)
    data = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        offset = file.pages.first.tags[262].valueoffset
    data[offset : offset + 2] = struct.pack("<H", 1)  # "grey", with three samples
    return bytes(data)


TREES: dict[str, tuple[str, Callable[[Path], Truth], int]] = {
    "mvtec_ad": ("mvtec_ad", mvtec_ad, 4),
    "visa": ("visa", visa, 4),
    "btad": ("btad", btad, 3),
    "mpdd": ("mpdd", mpdd, 2),
    "isic": ("isic", isic, 0),
    "colondb": ("colondb", colondb, 0),
    "clinicdb as PNG": ("clinicdb", clinicdb_png, 0),
    "clinicdb as TIFF": ("clinicdb", clinicdb_tiff, 0),
    "tn3k": ("tn3k", tn3k, 0),
    "mvtec_ad_2": ("mvtec_ad_2", mvtec_ad_2, 2),
    "real_iad": ("real_iad", real_iad, 2),
    "kvasir_seg": ("kvasir_seg", kvasir_seg, 0),
}
"""Test name -> (catalog name, maker, number of normal test images)."""
