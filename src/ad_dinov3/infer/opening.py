"""The one door: whatever a user names becomes something that scores images, for Python, commands, service and bench."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ad_dinov3.assets import EMBEDDED
from ad_dinov3.config import PRESETS, ModelConfig
from ad_dinov3.data.copies import here
from ad_dinov3.errors import AdDinoError, ConfigError, WeightsError
from ad_dinov3.infer.areas import ALL_OF_IT, read_areas
from ad_dinov3.infer.compared import load_references
from ad_dinov3.infer.exported import NO_TOKENS, is_exported, read_session_config, tells_tokens
from ad_dinov3.infer.scorer import Scorer
from ad_dinov3.infer.views import WHOLE, View
from ad_dinov3.methods.table import METHODS, incomparable, method_row
from ad_dinov3.weights.saved import read_config, saved_folder

if TYPE_CHECKING:
    from ad_dinov3.infer.detector import Detector
    from ad_dinov3.infer.session import Session


@dataclass(frozen=True)
class Viewed:
    """A model behind a view: what scores the images, and the digest of both. Equal fingerprints give equal maps."""

    scorer: Scorer
    fingerprint: str


@dataclass(frozen=True)
class ModelSpec:
    """Which model, and how it looks at images: what `load` and `look_through` take, to be opened in any process."""

    model: str = EMBEDDED
    method: str | None = None
    weights: str | None = None
    device: str = "cpu"
    offline: bool = False
    view: View = WHOLE

    def open(self) -> Detector | Session:
        """The model, as `load` opens it."""
        return load(self.model, method=self.method, weights=self.weights, device=self.device, offline=self.offline)


@dataclass(frozen=True)
class Abilities:
    """What a model can do beside scoring.

    Attributes:
        no_tokens: why images cannot be compared by it; empty: they can.
        has_states: its prompts name states of normal and abnormal parts, which can be chosen.
    """

    no_tokens: str = ""
    has_states: bool = False


UNKNOWN = Abilities()
"""Of a model that is not here yet: images can be compared by it, as by most; it tells when it is asked."""


def abilities_of(spec: ModelSpec) -> Abilities:
    """What a model can do, by its settings on this machine; neither torch nor the model is loaded for it."""
    if is_exported(spec.model):
        folder = Path(spec.model)
        return Abilities("" if tells_tokens(folder) else f"{folder} {NO_TOKENS}")
    try:
        config: ModelConfig | None = read_config(saved_folder(spec.model, offline=True))
    except AdDinoError:
        config = None
    if spec.method is not None and (config is None or config.method.kind != spec.method):
        config = PRESETS[method_row(spec.method).preset]
    if config is None:
        return UNKNOWN
    return Abilities(incomparable(config.method.kind), METHODS[config.method.kind].says_states(config))


@dataclass(frozen=True)
class CarriedModel:
    """In the place of a `ModelSpec`: a model that is open already and travels whole, with the normals it remembers."""

    model: Detector | Session
    view: View = WHOLE

    def open(self) -> Detector | Session:
        """The model itself."""
        return self.model


def load(
    model: str | Path = EMBEDDED,
    *,
    method: str | None = None,
    weights: str | None = None,
    device: str = "cpu",
    offline: bool = False,
) -> Detector | Session:
    """A model that predicts, from whatever there is.

    Args:
        model: ``embedded``, a model's folder, an exported folder (which needs no torch), the URI of one of these (s3,
            gs, az), which is copied here, a repository id of the Hugging Face hub, or, with ``method``, a checkpoint
            file of the method's authors.
        method: what ``--method`` calls it; None: whatever the folder is of.
        weights: with ``method``, the encoder of what comes from no folder: a name, a folder or a file.
        device: a torch device; for an exported folder one that its runtime has.
        offline: never download.

    Raises:
        WeightsError: a file is missing or does not fit; the message names it and the ways to get it.
        ConfigError: no such method, the model is of another one, or the arguments contradict each other.
    """
    name = str(model)
    check_method(method)
    try:
        name = str(here(name))
        return _opened(name, method, weights, device, offline)
    except (AdDinoError, ImportError, OSError):
        raise
    except Exception as error:  # files of another model, or damaged ones, fail deep inside of what reads them
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise WeightsError(f"{name}: cannot be opened, its files are damaged or of another model ({reason})") from error


def _opened(name: str, method: str | None, weights: str | None, device: str, offline: bool) -> Detector | Session:
    if is_exported(name):
        from ad_dinov3.infer.session import Session

        held = read_session_config(Path(name)).method
        if method not in (None, held):
            raise ConfigError(f"{name} is an export of {held}, not of {method}; omit --method")
        if weights is not None:
            raise ConfigError(f"{name} is an export and holds its weights; omit --weights")
        return Session(name, device=device)
    try:
        from ad_dinov3.infer.detector import Detector
        from ad_dinov3.model import open_method
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ConfigError(
            f"torch is not installed, which {name} needs; install it, or name an exported folder"
        ) from None

    detector = Detector(open_method(method, name, weights, offline=offline), device=device, offline=offline)
    if weights is None and not Path(name).is_file():
        folder = saved_folder(name, offline=True)
        if read_config(folder).method.kind == detector.method:  # else it has lent its encoder and nothing more
            detector.references = load_references(folder)
            detector.areas = read_areas(folder) or ALL_OF_IT
    return detector


def check_method(method: str | None) -> None:
    """Refuse an unknown method before anything is loaded.

    Raises:
        ConfigError: it is neither None nor a method's name; the message lists the names.
    """
    if method is not None:
        method_row(method)


def remember_all(detector: Detector | Session, normals: Mapping[str, Sequence[Path]], view: View = WHOLE) -> None:
    """Let a model remember the normal images of each class.

    Raises:
        ConfigError: the method has no tokens by which images can be compared.
        ImageError: an image cannot be decoded.
    """
    for class_name, paths in normals.items():
        detector.remember(paths, class_name, view)


def look_through(detector: Detector | Session, view: View) -> Viewed:
    """The model seen through a view.

    Raises:
        ConfigError: tiles of less than 16 px, an overlap out of range, or normal images that the model has looked at
            in another way.
    """
    words = f" {view.words}" if view.words else ""
    return Viewed(detector.seen_through(view), f"{detector.fingerprint}{words}")


def method_title(detector: Titled) -> str:
    """What people call a model's method, and whose normal images it compares with."""
    title = METHODS[detector.method].title if detector.method in METHODS else detector.method
    return f"{title}, few-shot ({', '.join(detector.normal_classes)})" if detector.normal_classes else title


class Titled(Protocol):
    """What can say of which method it is."""

    @property
    def method(self) -> str: ...

    @property
    def normal_classes(self) -> tuple[str, ...]: ...
