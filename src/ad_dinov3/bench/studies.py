"""The paper's tables as values: which variants are trained on what and measured on what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ad_dinov3.config import PRESETS, ModelConfig
from ad_dinov3.errors import ConfigError
from ad_dinov3.methods.table import borrowing, method_row


@dataclass(frozen=True)
class Variant:
    """One line of a table.

    Attributes:
        label: what the table calls it.
        method: as in ``evaluate --method``.
        changes: settings on top of the preset.
    """

    label: str
    method: str = "ad_dinov3"
    changes: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_trained(self) -> bool:
        """Whether it must be trained before it is measured."""
        return method_row(self.method).is_trained

    def config(self, preset: str, changes: Mapping[str, object]) -> ModelConfig:
        """The settings of this line; a baseline has a preset of its own, and takes only the training's changes.

        Raises:
            ConfigError: no such preset or setting.
        """
        if preset not in PRESETS:
            raise ConfigError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
        row, usual = method_row(self.method), PRESETS[preset]
        if row.borrows_encoder:
            return borrowing(self.method, usual.with_settings(changes)).with_settings(self.changes)
        if usual.method.kind == self.method:
            return usual.with_settings({**changes, **self.changes})
        wanted = {key: value for key, value in changes.items() if key.startswith("train.")}
        return PRESETS[row.preset].with_settings({**wanted, **self.changes})


@dataclass(frozen=True)
class Route:
    """Data sets that are trained on, and those that are measured on then."""

    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """One table of the paper.

    Attributes:
        name: ``table1`` and so on.
        title: for people.
        source: title of the published figures that belong to it.
        variants: its lines.
        routes: its data.
    """

    name: str
    title: str
    source: str
    variants: tuple[Variant, ...]
    routes: tuple[Route, ...]

    def on(self, train: tuple[str, ...], test: tuple[str, ...]) -> Study:
        """The same lines on other data; empty tuples keep the paper's."""
        if not train and not test:
            return self
        if not train or not test:
            raise ConfigError("--train and --test go together: name the data of both")
        return replace(self, routes=(Route(train, test),))


# Trained on VisA and tested on the others; VisA is tested by the model trained on MVTec AD (section 4.1).
_FROM_VISA = Route(("visa",), ("btad", "mpdd", "mvtec_ad", "isic", "colondb", "clinicdb", "tn3k"))
_FROM_MVTEC = Route(("mvtec_ad",), ("visa",))
_ABLATION = Route(("visa",), ("mvtec_ad",))

STUDIES = {
    study.name: study
    for study in (
        Study(
            "table1",
            "Table 1: zero-shot methods on eight data sets",
            "AD-DINOv3, Table 1",
            (
                Variant("WinCLIP", "winclip"),
                Variant("APRIL-GAN", "april_gan"),
                Variant("AnomalyCLIP", "anomalyclip"),
                Variant("AdaCLIP", "adaclip"),
                Variant("AD-DINOv3"),
            ),
            (_FROM_VISA, _FROM_MVTEC),
        ),
        Study(
            "table2",
            "Table 2: the components of AD-DINOv3",
            "AD-DINOv3, Table 2",
            (
                Variant("untrained baseline", "dinov3_plain"),
                Variant("CMCL alone", changes={"method.loss.aacm": 0.0}),
                Variant("CMCL and AACM"),
            ),
            (_ABLATION,),
        ),
        Study(
            "table3",
            "Table 3: the last layer against four",
            "AD-DINOv3, Table 3",
            (Variant("last layer", changes={"method.stages": "last"}), Variant("four layers")),
            (_ABLATION,),
        ),
    )
}
