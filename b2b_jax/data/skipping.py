"""Bad photos among the training photos: named once, counted, and each replaced by the next good one."""

import contextlib
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from b2b_jax.data.sources import Part, Record, Source, check_extent
from b2b_jax.errors import UserError, shown
from b2b_jax.files import read_object, write_json
from b2b_jax.images import ImageError


@dataclass
class BadPhotos:
    """What was skipped, a line each that starts with the photo's path; in a file, too, once `keep_in` says where."""

    lines: list[str] = field(default_factory=list)
    path: Path | None = None

    _lock = threading.Lock()  # one for all: several may write the same file

    def add(self, line: str) -> None:
        """Notes a photo; says so when it is new."""
        with self._lock:
            if line not in self.lines:
                self.lines.append(line)
                tqdm.write(shown(f"skipped: {line}"))
                self._write()

    def keep_in(self, path: Path) -> None:
        """From now on the file holds what is known, beside what it held before."""
        with self._lock:
            self.path = path
            self._write()

    def _write(self) -> None:
        if self.path and self.lines:
            before = read_object(self.path).get("photos")
            known = map(str, before) if isinstance(before, list) else []
            lines = sorted({*known, *self.lines})
            with contextlib.suppress(OSError):  # a list of what was said already ends no training
                write_json(self.path, {"count": len(lines), "photos": lines})


@dataclass(frozen=True)
class Skipping:
    """`source` with the next good record in place of a bad one.

    What comes is a function of the index and the files alone, so that a resumed run sees the same photos.
    """

    source: Source
    bad: BadPhotos
    smallest: int = 1  # pixels; what is smaller is bad, too

    tolerated = 0.5  # share of bad photos beyond which something else must be wrong

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Record:
        for turn in range(len(self.source)):
            try:
                return self._good((index + turn) % len(self.source))
            except (ImageError, UserError) as error:
                self.bad.add(str(error))
        raise UserError(f"None of the {len(self.source)} photos can be used; one of them: {self.bad.lines[-1]}")

    def _good(self, index: int) -> Record:
        record = self.source[index]
        height, width = next(v.shape[:2] for k, v in record.items() if k != "name")
        check_extent(record["name"], height, width, self.smallest)
        return record

    def size(self, index: int) -> tuple[str, int, int]:
        """Name, height and width of the photo at `index` itself."""
        return self.source.size(index)

    def at_least(self, smallest: int) -> "Skipping":
        """The same, for crops of `smallest` pixels."""
        return replace(self, smallest=smallest)


def at_least(source: Source, smallest: int) -> Source:
    """`source` for crops of `smallest` pixels: if it skips bad photos, also those that are smaller."""
    return source.at_least(smallest) if isinstance(source, Skipping) else source


def apart(source: Source, count: int) -> tuple[Source, Source]:
    """All photos of `source` but the last `count`, and these; each skips bad ones if `source` does."""
    inner, first = source.source if isinstance(source, Skipping) else source, len(source) - count
    parts = Part(inner, range(first)), Part(inner, range(first, len(source)))
    return tuple(replace(source, source=part) for part in parts) if isinstance(source, Skipping) else parts
