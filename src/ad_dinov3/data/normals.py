"""A folder of normal images that few-shot methods compare with -> the files of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from ad_dinov3.data.copies import here
from ad_dinov3.data.streams import find_images
from ad_dinov3.errors import ConfigError
from ad_dinov3.types import Sample


def draw_normals(samples: Sequence[Sample], count: int, seed: int) -> dict[str, list[Path]]:
    """Some normal training images of each class, for the k-shot protocol of the literature.

    Args:
        samples: of a set in the MVTec AD layout, whose normal training images lie in CLASS/train/good.
        count: images of each class.
        seed: of the draw; a class's draw does not depend on the other classes.

    Raises:
        ConfigError: a class has no such folder, or fewer images.
    """
    folders = {sample.class_name: sample.image_path.parent.parent.parent / "train" / "good" for sample in samples}
    drawn = {}
    for name, folder in folders.items():
        found = sorted(item.path for item in find_images([str(folder)])) if folder.is_dir() else []
        if len(found) < count:
            raise ConfigError(
                f"{folder}: expected at least {count} normal images of {name}, found {len(found)}; "
                "name a folder of normal images instead of their number"
            )
        drawn[name] = sorted(Random(f"{seed} {name}").sample(found, count))
    return drawn


def find_class_normals(folder: Path | str, class_name: str | None = None) -> dict[str, list[Path]]:
    """The images of one class, or of each sub-folder's; a folder of images alone is of the class ``object``.

    Raises:
        ConfigError: as `find_normals`.
    """
    folder = here(folder)
    if class_name is None and folder.is_dir() and not any(path.is_dir() for path in folder.iterdir()):
        class_name = "object"
    return find_normals(folder, None if class_name is None else [class_name])


def find_normals(folder: Path | str, class_names: Sequence[str] | None = None) -> dict[str, list[Path]]:
    """The images of each class, found recursively and in natural order.

    A sub-folder named after a class holds that class's images; for a single class the folder itself may hold them.

    Args:
        folder: of normal images, or a URI of one, which is copied here.
        class_names: the classes wanted; None: every sub-folder is one.

    Raises:
        ConfigError: no such folder, a class without sub-folder where several are wanted, or without images.
    """
    folder = here(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of normal images")
    inside = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    wanted = list(dict.fromkeys(inside if class_names is None else class_names))
    if not wanted:
        raise ConfigError(f"{folder}: expected a sub-folder of normal images for each class, or one class's name")
    missing = sorted(set(wanted) - set(inside))
    if missing and len(wanted) > 1:
        raise ConfigError(
            f"{folder}: expected a sub-folder of normal images for each class; there is none for {', '.join(missing)}"
        )
    folders = {name: folder / name if name in inside else folder for name in wanted}
    found = {name: [item.path for item in find_images([str(place)])] for name, place in folders.items()}
    empty = [str(folders[name]) for name, paths in found.items() if not paths]
    if empty:
        raise ConfigError(f"no normal images in {', '.join(empty)}; expected files such as .jpg, .png, .bmp, .tiff")
    return found
