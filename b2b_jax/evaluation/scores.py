"""The values of a test set, and the seconds that an evaluation spends on what."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

PARTS = ("choosing", "reading", "compiling", "networks", "metrics", "writing", "pictures")  # choosing: a fixed filter


@dataclass
class Clock:
    """Seconds spent in each of PARTS; what has not run in its shape before counts as compiling."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    images: int = 0  # scored meanwhile
    _seen: set = field(default_factory=set)

    @contextlib.contextmanager
    def part(self, name: str, program: object = None) -> Iterator[None]:
        """Counts the time within as `name`, or as compiling when `program` is new."""
        new = program is not None and program not in self._seen
        self._seen.add(program)
        start = time.monotonic()
        yield
        self.seconds["compiling" if new else name] += time.monotonic() - start


@dataclass
class Scores:
    """Per-image values of one test set: values[row][metric] is a list in the order of `names`.

    `blur` is the variance of the blurry photo's Laplacian, on grey levels from 0 to 255: low for strong blur. `places`
    holds each photo's index in its source and the size of the batch that it was scored in.
    """

    names: list[str]
    values: dict[str, dict[str, list[float]]]
    blur: list[float] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)

    def exact(self) -> list[int]:
        """Positions of the photos that a row gives exactly, with an infinite PSNR."""
        return np.flatnonzero(np.isinf([row["psnr"] for row in self.values.values()]).any(axis=0)).tolist()

    def rows(self) -> dict[str, dict[str, float]]:
        """Mean and standard error of every row, and of its gain in PSNR over the deblurrer: results.json's entries.

        Exact photos are left out of all rows, so that these are means over the same photos.
        """
        exact = self.exact()
        kept = {row: {m: np.delete(numbers, exact) for m, numbers in v.items()} for row, v in self.values.items()}
        rows = {row: _summary(values) for row, values in kept.items()}
        if "deblurrer" in kept:
            for row, values in kept.items():
                gain = np.subtract(values["psnr"], kept["deblurrer"]["psnr"])
                rows[row] |= _summary({"gain": gain.tolist()})
        return rows


def _summary(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Over the images that have a value: NIQE has none for small ones."""
    summary = {}
    for metric, numbers in values.items():
        known = [x for x in numbers if not np.isnan(x)]
        if known:
            summary[metric] = float(np.mean(known))
            summary[f"{metric}_error"] = float(np.std(known, ddof=1) / np.sqrt(len(known))) if len(known) > 1 else 0.0
    return summary
