"""The paper's figures 1 and 3 on the data of a study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from ad_dinov3.bench.gallery import choose_cases, draw_gallery
from ad_dinov3.bench.plan import Plan, StudyOptions
from ad_dinov3.bench.reproduce import Reports, subject_of, trained_model
from ad_dinov3.bench.run import score
from ad_dinov3.bench.scoring import ScoringOptions, as_test_set
from ad_dinov3.bench.similarity import draw_similarity
from ad_dinov3.bench.studies import Variant
from ad_dinov3.data.masks import load_mask
from ad_dinov3.errors import DataError
from ad_dinov3.infer.detector import Detector
from ad_dinov3.model import load_model
from ad_dinov3.types import Sample


def figure3(plan: Plan, options: StudyOptions, reports: Reports | None = None) -> Iterator[tuple[str, Image.Image]]:
    """Maps of every line of the plan, of the untrained baseline and of the classical one, for each test set.

    Yields:
        the data set's name and the picture; cases are chosen by AD-DINOv3's map.
    """
    reports = reports or Reports()
    lines = sorted(plan.variants, key=lambda variant: variant.label != "AD-DINOv3")
    untrained = (Variant("untrained baseline", "dinov3_plain"), Variant("mahalanobis", "mahalanobis"))
    for route in plan.routes:
        subjects = [subject_of(line, options.seeds[0], route, options, reports) for line in (*lines, *untrained)]
        for name in route.test:
            test_set = as_test_set(options.open(name), options.limit)
            stored = []
            for subject in subjects:
                reports.step(f"{subject.method}: scoring {test_set.name}")
                scoring = ScoringOptions(options.batch_size, report=reports.scoring)
                items, broken = score(subject, test_set, options.protocol, options.out / "store", scoring)
                stored.append([item for item in items if item.stored not in broken])
            yield test_set.name, draw_gallery(choose_cases(stored), [subject.method for subject in subjects])


def figure1(plan: Plan, options: StudyOptions, reports: Reports | None = None) -> Iterator[tuple[str, Image.Image]]:
    """Similarity of a normal and of an anomalous patch to all others, for each test set.

    The image is, of the anomalous ones, the one whose share of anomalous pixels is nearest to a tenth.

    Yields:
        the data set's name and the picture.
    """
    reports = reports or Reports()
    adapted = next(variant for variant in plan.variants if variant.label == "AD-DINOv3")
    for route in plan.routes:
        folder = trained_model(adapted, options.seeds[0], route, options, reports)
        detector = Detector(load_model(folder, device=options.device), device=options.device)
        for name in route.test:
            test_set = as_test_set(options.open(name), options.limit)
            reports.step(f"similarities on {test_set.name}")
            anomalous = [sample for sample in test_set.samples if sample.mask_path is not None]
            yield test_set.name, draw_similarity(detector, _typical(anomalous))


def _typical(samples: Sequence[Sample]) -> Sample:
    shares = [float(load_mask(sample).mean()) for sample in samples]
    if not shares:
        raise DataError("figure 1 needs anomalous images, and there are none")
    return samples[int(np.argmin(np.abs(np.array(shares) - 0.1)))]
