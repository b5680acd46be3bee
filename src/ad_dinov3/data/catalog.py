"""From what a user names to labelled samples: catalog names, NAME=DIR, folders and manifests."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ad_dinov3.data.copies import here
from ad_dinov3.data.known_sets import CATALOG, ClassRow, DataSet
from ad_dinov3.data.layouts import any_of, list_folder
from ad_dinov3.data.listing import Listing
from ad_dinov3.data.manifest import read_manifest
from ad_dinov3.errors import DataError
from ad_dinov3.types import Sample, class_words

__all__ = [
    "CATALOG",
    "ClassRow",
    "DataSet",
    "LabelledData",
    "find_data_set",
    "locate",
    "names_here",
    "open_data",
    "read_data",
    "search_roots",
]

DATA_VARIABLE = "AD_DINOV3_DATA"


@dataclass(frozen=True)
class LabelledData:
    """A data set that was opened.

    Attributes:
        name: the catalog's name, or the folder's or file's.
        root: where it was read.
        listing: samples and problems.
        words: the words shown in prompts for each class name.
    """

    name: str
    root: Path
    listing: Listing
    words: Mapping[str, str]


def read_data(spec: str, roots: Sequence[Path] | None = None) -> list[Sample]:
    """Samples of what a user names, as in ``open_data``.

    Raises:
        DataError: it is not there, has another shape, or an image has no usable mask.
    """
    return open_data(spec, roots).listing.complete()


def open_data(spec: str, roots: Sequence[Path] | None = None) -> LabelledData:
    """Open what a user names: a data set of the catalog, ``NAME=DIR``, a folder in MVTec AD's shape, or a manifest.

    A URI (s3, gs, az) in the place of a folder or manifest is copied here.

    Args:
        spec: what the user wrote.
        roots: where a named data set is looked for; None takes ``search_roots`` of this process.

    Raises:
        DataError: it is not there, or has another shape.
    """
    name, equals, place = spec.partition("=")
    if equals and name in CATALOG:
        return _open_named(name, here(place))
    path = here(spec)
    if spec in CATALOG and not path.exists():
        return _open_named(spec, locate(spec, search_roots(os.environ, Path.cwd()) if roots is None else roots))
    if path.is_dir():
        has_meta = (path / "meta.json").is_file()
        listing = any_of(list_folder, _meta_of_folder)(path) if has_meta else list_folder(path)
    elif path.is_file():
        listing = read_manifest(path)
    else:
        known = ", ".join(CATALOG)
        raise DataError(f"{spec}: expected a folder, a manifest, NAME=DIR or one of the data sets {known}")
    words = {sample.class_name: class_words(sample.class_name) for sample in listing.samples}
    return LabelledData(path.resolve().stem if path.is_file() else path.resolve().name, path, listing, words)


def locate(name: str, roots: Sequence[Path]) -> Path:
    """The first folder below ``roots`` that holds the data set.

    Raises:
        DataError: none does; the message says where was looked and where to get it.
    """
    data_set = find_data_set(name)
    for folder in _candidates(data_set, roots):
        try:
            if data_set.layout(folder).samples:
                return folder
        except DataError:
            continue  # a folder of that name with something else in it
    looked = ", ".join(str(root) for root in roots) or "nowhere"
    raise DataError(
        f"{data_set.title} was not found in {looked}; set {DATA_VARIABLE} to the folder that holds "
        f"{data_set.folders[0]}, or write {name}=DIR; get it from {data_set.homepage} ({data_set.licence})"
    )


def search_roots(environment: Mapping[str, str], working_folder: Path) -> list[Path]:
    """Where data sets are looked for: the folders in AD_DINOV3_DATA, then ``data`` and ``datasets`` here."""
    named = [Path(part) for part in environment.get(DATA_VARIABLE, "").split(os.pathsep) if part]
    return [*named, working_folder / "data", working_folder / "datasets"]


def names_here() -> list[str]:
    """Names of the data sets of which a folder lies where this process looks for them; the folders are not opened."""
    roots = search_roots(os.environ, Path.cwd())
    return [name for name, data_set in CATALOG.items() if next(_candidates(data_set, roots), None) is not None]


def find_data_set(name: str) -> DataSet:
    """The catalog's row of a name.

    Raises:
        DataError: there is none.
    """
    if name not in CATALOG:
        raise DataError(f"no data set {name!r} in the catalog; expected one of {', '.join(CATALOG)}")
    return CATALOG[name]


def _open_named(name: str, root: Path) -> LabelledData:
    data_set = find_data_set(name)
    listing = data_set.layout(root).requiring_masks()
    samples = tuple(replace(sample, mask_above=data_set.mask_above) for sample in listing.samples)
    words = {sample.class_name: class_words(sample.class_name) for sample in samples}
    words |= {class_name: row.words for class_name, row in data_set.classes.items()}
    return LabelledData(name, root, replace(listing, samples=samples), words)


def _candidates(data_set: DataSet, roots: Sequence[Path]) -> Iterator[Path]:
    for root in roots:
        for folder in data_set.folders:
            if (root / folder).is_dir():
                yield root / folder


def _meta_of_folder(root: Path) -> Listing:
    return read_manifest(root / "meta.json")
