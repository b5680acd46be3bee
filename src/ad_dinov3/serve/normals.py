"""The folder of normal images that the models compare with: a file more or less, and all models are opened anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Lock

from ad_dinov3.data.decode import decode_bytes
from ad_dinov3.data.normals import find_normals
from ad_dinov3.errors import ConfigError
from ad_dinov3.files import replacing
from ad_dinov3.serve.models import Models

_SUFFIXES = ((b"\xff\xd8", ".jpg"), (b"\x89PNG", ".png"), (b"BM", ".bmp"), (b"RIFF", ".webp"))


class UnknownImageError(ConfigError):
    """There is no image of that name."""


@dataclass(eq=False)
class NormalImages:
    """The normal images of a class, as files of a folder.

    Args:
        folder: of normal images; a sub-folder with the class's name holds them, if there is one.
        class_name: what they show.
        models: that compare with them.
    """

    folder: Path
    class_name: str
    models: Models
    _lock: Lock = field(init=False, default_factory=Lock)

    def names(self) -> list[str]:
        """What the images are called: their paths within the folder."""
        return [path.relative_to(self.folder).as_posix() for path in self._paths()]

    def add(self, files: Sequence[tuple[str, bytes]]) -> list[str]:
        """Keep images, each called by its content, and let every model compare with them from now on.

        Args:
            files: names, for errors alone, and contents.

        Returns:
            What they are called now.

        Raises:
            ImageError: one is no image; then nothing is kept.
            AdDinoError: a model does not take them; then all is as it was.
        """
        for name, content in files:
            decode_bytes(content, Path(name))
        with self._lock:
            home = self._home()
            targets = {home / _name(content): content for _, content in files}
            with self._changing() as undo:
                for path, content in targets.items():
                    if not path.exists():
                        undo(path.unlink)
                        with replacing(path) as unfinished:
                            unfinished.write_bytes(content)
        return [path.relative_to(self.folder).as_posix() for path in targets]

    def remove(self, name: str) -> None:
        """Forget an image, in every model; its file is deleted.

        Raises:
            UnknownImageError: there is none of that name.
            AdDinoError: a model cannot do without it, the last one for instance; then all is as it was.
        """
        with self._lock:
            found = {path.relative_to(self.folder).as_posix(): path for path in self._paths()}
            if name not in found:
                raise UnknownImageError(f"there is no normal image {name!r}")
            path = found[name]
            aside = path.with_name(f".{path.name}.removed")  # hidden files are no normal images
            with self._changing() as undo:
                path.rename(aside)
                undo(lambda: aside.rename(path))
            aside.unlink()

    @contextmanager
    def _changing(self) -> Iterator[Callable[[Callable[[], object]], object]]:
        """Reload the models after a change of the folder; where that fails, undo it."""
        with ExitStack() as undoing:
            yield undoing.callback
            self.models.reload_all()
            undoing.pop_all()

    def _paths(self) -> list[Path]:
        return find_normals(self.folder, [self.class_name])[self.class_name]

    def _home(self) -> Path:
        own = self.folder / self.class_name
        return own if own.is_dir() else self.folder


def suffix_of(content: bytes) -> str:
    """What the name of an image file of this content ends in."""
    return next((suffix for start, suffix in _SUFFIXES if content.startswith(start)), ".tif")


def _name(content: bytes) -> str:
    return f"{sha256(content).hexdigest()[:16]}{suffix_of(content)}"
