"""run.json: what the results of a folder rest on, and how the model that made them is opened once more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ad_dinov3.assets import EMBEDDED
from ad_dinov3.data.normals import find_normals
from ad_dinov3.data.remote import redacted
from ad_dinov3.files import parse_json
from ad_dinov3.infer.opening import ModelSpec
from ad_dinov3.infer.views import WHOLE
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.outputs import Outputs

RUN_FILE = "run.json"


@dataclass(frozen=True)
class MadeBy:
    """The model of a run.

    Attributes:
        spec: which model, and how it looked at the images.
        normals: folder or URI of the normal images that it was given.
        compare: ``folder`` or ``stream``, where images were compared with each other, which the model alone cannot do
            for one more image.
    """

    spec: ModelSpec = field(default_factory=ModelSpec)
    normals: str | None = None
    compare: str | None = None

    def wanted_normals(self, options: DriveOptions) -> dict[str, list[Path]]:
        """The normal images of each class, as the run took them.

        Raises:
            ConfigError: they are gone.
        """
        if self.normals is None:
            return {}
        return find_normals(self.normals, None if options.class_from_folder else [options.class_name])

    def words(self, options: DriveOptions) -> list[str]:
        """The options of `predict` that score images in the same way."""
        spec, view = self.spec, self.spec.view
        named = {
            "--model": None if spec.model == EMBEDDED else redacted(spec.model),
            "--method": spec.method,
            "--weights": spec.weights and redacted(spec.weights),
            "--normals": self.normals and redacted(self.normals),
            "--compare": self.compare,
            "--class-name": None if options.class_name == DriveOptions.class_name else options.class_name,
            "--tile": view.tile_px,
            "--overlap": None if view.tile_px is None or view.overlap == WHOLE.overlap else view.overlap,
        }
        flags = {"--keep-aspect": view.keep_aspect, "--class-from-folder": options.class_from_folder}
        pairs = [word for name, value in named.items() if value is not None for word in (name, str(value))]
        return pairs + [name for name, is_set in flags.items() if is_set]

    def tree(self) -> dict[str, object]:
        """For run.json: paths of this machine as absolute ones, addresses without logins."""
        spec = {
            "model": _lasting(self.spec.model),
            "method": self.spec.method,
            "weights": self.spec.weights and _lasting(self.spec.weights),
            "view": asdict(self.spec.view),
        }
        return {"spec": spec, "normals": self.normals and _lasting(self.normals), "compare": self.compare}


@dataclass(frozen=True)
class RunFacts:
    """What run.json says, for those who go on with the results; what an older version left out has its default.

    Attributes:
        model: as the user named it.
        model_fingerprint: equal fingerprints give equal maps; empty: not said.
        method: what the method is called; empty: not said.
        promises: class name -> what is promised of false alarms, in words.
        options: how it was decided; None: not said, as after an interruption.
        outputs: the files of each image.
        made_by: how the model is opened again; None: not said.
    """

    model: str = EMBEDDED
    model_fingerprint: str = ""
    method: str = ""
    promises: Mapping[str, str] = field(default_factory=dict)
    options: DriveOptions | None = None
    outputs: Outputs = field(default_factory=Outputs)
    made_by: MadeBy | None = None

    @property
    def maker(self) -> MadeBy:
        """The model, by its name where nothing more is said."""
        return self.made_by or MadeBy(ModelSpec(self.model))


def read_run(folder: Path) -> RunFacts:
    """What a folder's run.json says; what is missing, or is not what it should be, has its default."""
    try:
        tree = parse_json((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return RunFacts()
    facts = TypeAdapter(RunFacts)
    tree = tree if isinstance(tree, dict) else {}
    try:
        return facts.validate_python(tree)
    except ValidationError as error:
        wrong = {one["loc"][0] for one in error.errors() if one["loc"]}
        return facts.validate_python({name: value for name, value in tree.items() if name not in wrong})


def _lasting(place: str) -> str:
    """A path that holds from every folder; names and addresses as they are."""
    return str(Path(place).absolute()) if Path(place).exists() else redacted(place)
