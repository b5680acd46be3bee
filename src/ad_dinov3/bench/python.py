"""`ad_dinov3.evaluate`: a model in hand measured on a data set, for programs and notebooks."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from ad_dinov3.bench.protocol import read_protocol
from ad_dinov3.bench.run import Evaluation, Tolerance
from ad_dinov3.bench.run import evaluate as run
from ad_dinov3.bench.scoring import as_test_set
from ad_dinov3.bench.subjects import detector_subject, session_subject
from ad_dinov3.data.catalog import LabelledData, open_data
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.session import Session


def evaluate(
    model: Detector | Session,
    data: LabelledData | str,
    *,
    protocol: str = "paper",
    store: str | Path | None = None,
    seen_too: bool = False,
) -> Evaluation:
    """Measure a model on a labelled data set: image and pixel metrics with intervals, by class, mean and pooled.

    Args:
        model: as `load` opens it, or `train`'s model in a `Detector`.
        data: as `open_data` opens it, or what that takes.
        protocol: ``paper``, ``released``, ``native`` or a TOML file.
        store: folder of the images' scores, from which an interrupted run goes on; None keeps nothing.
        seen_too: measure data that the model was trained on; the figures are marked as not zero-shot.

    Raises:
        DataError: the data are not there or do not fit, or the model has seen one of the images.
        ConfigError: no such protocol.
    """
    labelled = open_data(data) if isinstance(data, str) else data
    if isinstance(model, Session):
        subject = session_subject(model, str(model.folder), "session")
    else:
        subject = detector_subject(model, f"the model (preset {model.config.preset})", model.device)
    with TemporaryDirectory() as passing:
        place = Path(passing) if store is None else Path(store)
        return run(
            subject,
            as_test_set(labelled, None),
            read_protocol(protocol),
            place,
            tolerance=Tolerance(seen_too=seen_too),
        )
