"""What a reader of data sets found: samples, and a line for each image that has no usable mask."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ad_dinov3.errors import DataError
from ad_dinov3.types import Sample

_MAX_SHOWN = 5


@dataclass(frozen=True)
class Listing:
    """The samples of a data set and what did not fit; anomalous samples may have a label and no mask.

    Attributes:
        samples: ordered by class, defect and name (natural order).
        problems: one line per image that has no usable mask; names both paths.
        orphans: masks that no image claims.
    """

    samples: tuple[Sample, ...]
    problems: tuple[str, ...] = ()
    orphans: tuple[Path, ...] = ()

    @property
    def without_masks(self) -> list[Sample]:
        """The anomalous samples of which only the label is known."""
        return [sample for sample in self.samples if not sample.has_pixel_labels]

    def requiring_masks(self) -> Listing:
        """The same with a problem in the place of each anomalous sample that has no mask."""
        lines = tuple(f"{sample.image_path}: anomalous, and there is no mask for it" for sample in self.without_masks)
        kept = tuple(sample for sample in self.samples if sample.has_pixel_labels)
        return replace(self, samples=kept, problems=self.problems + lines)

    def complete(self) -> list[Sample]:
        """The samples, if nothing is wrong and every pixel's label is known.

        Raises:
            DataError: at least one image has no usable mask; the first few are named.
        """
        if bare := self.without_masks:
            raise DataError(
                f"masks are needed here, and {len(bare)} anomalous images have none, such as {bare[0].image_path}; "
                "what has labels alone can be measured by images: `ad-dinov3 evaluate`"
            )
        if self.problems:
            told = first_few(self.problems)
            raise DataError(f"{len(self.problems)} images do not fit (--skip-bad omits them): {told}")
        return list(self.samples)


def first_few(problems: Sequence[str]) -> str:
    """The first problems, and how many more there are, for a message."""
    more = f"; and {len(problems) - _MAX_SHOWN} more" if len(problems) > _MAX_SHOWN else ""
    return "; ".join(problems[:_MAX_SHOWN]) + more


def collected(items: Iterable[Sample | str]) -> Listing:
    """A listing of samples and problem lines in their order."""
    known = list(items)
    return Listing(
        tuple(item for item in known if isinstance(item, Sample)),
        tuple(item for item in known if isinstance(item, str)),
    )


def joined(listings: Iterable[Listing]) -> Listing:
    """One listing of several."""
    known = list(listings)
    return Listing(
        tuple(sample for listing in known for sample in listing.samples),
        tuple(problem for listing in known for problem in listing.problems),
        tuple(orphan for listing in known for orphan in listing.orphans),
    )


def listed_sample(image: Path, mask: Path | None, class_name: str, defect: str | None) -> Sample | str:
    """The sample of one line of a table, or the problem: files that are not there, an anomaly without a mask.

    Args:
        image: the image's path.
        mask: the mask's path; that of a normal image is not used.
        class_name: the category.
        defect: the defect type; None for a normal image.
    """
    if not os.path.isfile(image):  # a name can be too long to ask of, which is no file
        return f"{image}: the image is not there (mask {mask})"
    if defect is None:
        return Sample(image, None, class_name, False)
    if mask is None or not os.path.isfile(mask):
        return f"{image}: anomalous, and its mask is not there ({mask})"
    return Sample(image, mask, class_name, True, defect)


def folder_contents(root: Path) -> str:
    """What is in a folder, for the end of an error message."""
    if not root.is_dir():
        return "which is not a folder" if root.exists() else "which does not exist"
    try:
        names = sorted(entry.name for entry in root.iterdir())
    except OSError as error:
        return f"which cannot be listed ({error.strerror or error})"
    return f"found {', '.join(names[:8])}{' and more' if len(names) > 8 else ''}" if names else "which is empty"


def spread(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """At most ``limit`` samples, evenly spread over the list."""
    if limit is None or limit >= len(samples):
        return list(samples)
    return [samples[index * len(samples) // limit] for index in range(limit)]
