"""What is shipped as data: the embedded model's backbone and head, and sample images."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
EMBEDDED = "embedded"
"""What the model that comes with the package is called."""
BACKBONES = {name: _HERE / name for name in ("lite0", "nano")}
"""Folders of the frozen backbones that come with the package, by name."""
EMBEDDED_MODEL = _HERE / "embedded"
"""Folder of the embedded model, as `ad_dinov3.model.save_model` writes it."""
SAMPLES = _HERE / "samples"
"""Images with masks in the MVTec AD layout: what the demo shows and an export is compared on."""
GOOD_SAMPLES = _HERE / "good_samples"
"""Photographs of good parts by class, which the demo compares the samples of that class with."""
