"""Every choice behind a number that the model does not make itself, as one frozen value."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from ad_dinov3.data.masks import load_mask
from ad_dinov3.errors import ConfigError
from ad_dinov3.types import Sample


@dataclass(frozen=True)
class Protocol:
    """How maps meet masks and what is reported. The input's size and interpolation belong to the model.

    Attributes:
        name: what tables call it.
        size: (H, W) in px at which maps and masks are compared; None is each image's own size.
        mask_rule: how a mask gets that size: ``nearest``, or ``bilinear_half``: bilinear, then > 0.5.
        images: which images count for pixel metrics, ``all`` or only the ``anomalous`` ones.
        class_words: (class, words) pairs that replace the class's name in prompts.
        fpr_limit: where AUPRO stops.
        legacy_aupro: report AUPRO of 200 thresholds too, which others publish.
        exact_up_to_px: sets with more pixels are measured over 65,536 bins; the rows say so.
        resamples: of the bootstrap over images.
        level: of the confidence intervals.
        seed: of the bootstrap.
        epoch_rule: which epoch of a training is measured; only the last, since test data choose nothing.
    """

    name: str
    size: tuple[int, int] | None = (512, 512)
    mask_rule: Literal["nearest", "bilinear_half"] = "nearest"
    images: Literal["all", "anomalous"] = "all"
    class_words: tuple[tuple[str, str], ...] = ()
    fpr_limit: float = 0.3
    legacy_aupro: bool = False
    exact_up_to_px: int = 200_000_000
    resamples: int = 1000
    level: float = 0.95
    seed: int = 0
    epoch_rule: Literal["last"] = "last"

    @property
    def digest(self) -> str:
        """Hex digest over every choice but the name: equal digests give comparable numbers."""
        choices = {key: value for key, value in asdict(self).items() if key != "name"}
        return hashlib.sha256(json.dumps(choices, sort_keys=True).encode()).hexdigest()[:12]

    def words(self, class_name: str) -> str:
        """What a class is called in prompts."""
        return dict(self.class_words).get(class_name, class_name)

    def mask(self, sample: Sample) -> NDArray[np.bool_]:
        """The ground truth (H, W) of a sample at the size of evaluation.

        Raises:
            DataError: the mask cannot be read or does not have its image's size.
        """
        return load_mask(sample, self.size, self.mask_rule)


# The paper names neither the size of evaluation nor the mask rule; the released code evaluates at the input's 512 px
# with masks resized bilinearly, then > 0.5. Nearest keeps thin defects that the bilinear rule erases.
PROTOCOLS = {
    "paper": Protocol("paper"),
    "released": Protocol("released", mask_rule="bilinear_half", legacy_aupro=True),
    "native": Protocol("native", size=None),
}


def read_protocol(name_or_path: str) -> Protocol:
    """A protocol by name, or from a TOML file whose keys are the fields; ``base`` names the protocol it changes.

    Raises:
        ConfigError: no such name or file, an unknown key, a value of the wrong kind.
    """
    if name_or_path in PROTOCOLS:
        return PROTOCOLS[name_or_path]
    path = Path(name_or_path)
    if path.suffix != ".toml" or not path.is_file():
        raise ConfigError(f"no protocol {name_or_path!r}; there are {', '.join(PROTOCOLS)}, or give a .toml file")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from None
    base = PROTOCOLS.get(str(tree.pop("base", "paper")))
    known = {field.name for field in fields(Protocol)}
    if base is None or not tree.keys() <= known:
        wrong = ", ".join(sorted(tree.keys() - known)) or "base"
        raise ConfigError(f"{path}: unknown {wrong}; a protocol has {', '.join(sorted(known))} and base")
    if "class_words" in tree:
        tree["class_words"] = sorted(dict(tree["class_words"]).items())
    if tree.get("size") == "native":
        tree["size"] = None
    choices = asdict(replace(base, name=path.stem)) | tree
    try:
        return TypeAdapter(Protocol).validate_python(choices)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path}: {details}") from None
