"""What a study needs, and what of it can be done on this machine; nothing is downloaded or computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ad_dinov3.bench.protocol import PROTOCOLS, Protocol
from ad_dinov3.bench.studies import Route, Study, Variant
from ad_dinov3.data.catalog import LabelledData, open_data
from ad_dinov3.errors import DataError, WeightsError
from ad_dinov3.methods.table import METHODS
from ad_dinov3.weights import find_local, public_row, ways


@dataclass(frozen=True)
class StudyOptions:
    """How a study is carried out.

    Attributes:
        out: folder of models, rows and stored scores; a second call goes on there.
        preset: settings that the variants change.
        changes: dotted settings for all variants; ``encoder`` is the weights' name or path.
        seeds: of the trainings.
        protocol: of the evaluations.
        data_roots: where data sets are looked for; None: the usual places.
        limit: at most this many images of each set, evenly spread.
        batch_size: images per step of scoring.
        device: a torch device.
        cache: keep the frozen features of training images on disk.
    """

    out: Path
    preset: str = "paper"
    changes: dict[str, object] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    protocol: Protocol = PROTOCOLS["paper"]
    data_roots: tuple[Path, ...] | None = None
    limit: int | None = None
    batch_size: int = 8
    device: str = "cpu"
    cache: bool = True

    def open(self, name: str) -> LabelledData:
        """A data set by what the user calls it.

        Raises:
            DataError: it is not there.
        """
        return open_data(name, self.data_roots)


@dataclass(frozen=True)
class Need:
    """One thing that a study needs.

    Attributes:
        name: data set or weights.
        kind: ``data`` or ``weights``.
        is_there: found on this machine.
        how: where it was found, or where to get it.
    """

    name: str
    kind: str
    is_there: bool
    how: str


@dataclass(frozen=True)
class Plan:
    """What a study needs, and what of it can be done here.

    Attributes:
        study: the study.
        needs: everything, found or not.
        routes: the routes of which training data and at least one test set are there, without the missing sets.
        variants: the lines whose weights are there.
    """

    study: Study
    needs: tuple[Need, ...]
    routes: tuple[Route, ...]
    variants: tuple[Variant, ...]

    def check(self) -> None:
        """Refuse a study of which nothing can be done.

        Raises:
            DataError: no training data together with test data.
            WeightsError: no line has its weights.
        """
        if not self.routes:
            raise DataError(f"{self.study.name}: no training data together with test data; see the list above")
        if not self.variants:
            raise WeightsError(f"{self.study.name}: no line has its weights; see the list above")


def plan_study(study: Study, options: StudyOptions) -> Plan:
    """Look for the study's data and weights; nothing is downloaded or computed.

    Raises:
        ConfigError: no such preset or setting.
    """
    names = list(dict.fromkeys(name for route in study.routes for name in (*route.train, *route.test)))
    data = {name: _find_data(name, options) for name in names}
    per_variant = {v.label: _weights_of(v, options) for v in study.variants}
    weights = {name: _find_weights(name) for wanted in per_variant.values() for name in wanted}
    routes = []
    for route in study.routes:
        tests = tuple(name for name in route.test if data[name].is_there)
        if tests and all(data[name].is_there for name in route.train):
            routes.append(Route(route.train, tests))
    variants = tuple(v for v in study.variants if all(weights[name].is_there for name in per_variant[v.label]))
    return Plan(study, (*data.values(), *weights.values()), tuple(routes), variants)


def _weights_of(variant: Variant, options: StudyOptions) -> list[str]:
    """Names of the weights that a variant needs."""
    return list(METHODS[variant.method].weights(variant.config(options.preset, options.changes)))


def _find_weights(name: str) -> Need:
    try:
        found = find_local(name)
    except WeightsError as error:
        return Need(name, "weights", False, str(error))
    if found is None:
        return Need(name, "weights", False, ways(public_row(name)).strip())
    return Need(name, "weights", True, str(found.path))


def _find_data(name: str, options: StudyOptions) -> Need:
    try:
        data = options.open(name)
    except DataError as error:
        return Need(name, "data", False, str(error))
    return Need(name, "data", True, str(data.root))
