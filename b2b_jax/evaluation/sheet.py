"""evaluation/images.csv: the scores of every image, from which a killed evaluation resumes."""

import contextlib
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from b2b_jax import files
from b2b_jax.evaluation.scores import Scores

DIGITS = 6  # decimals in images.csv, and in what is averaged: a resumed evaluation gives the same means
HEAD = ["dataset", "image", "row"]
TEXT = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}  # names of photos are bytes, any bytes


class Sheet:
    """evaluation/images.csv: a line per test set, image and row, appended batch by batch.

    Opened again, it drops what a kill left half written.
    """

    def __init__(self, path: Path, metrics: Sequence[str]):
        self.path, self.metrics = path, list(metrics)
        self.header = [*HEAD, *self.metrics, "laplacian"]
        self.done: dict[tuple[str, str, str], list[float]] = {}
        self.done |= {key: values for key, values in read_sheet(path, self.header)}
        with files.draft(path) as part, part.open("w", **TEXT) as file:
            writer = csv.writer(file)
            writer.writerow(self.header)
            writer.writerows([*key, *_texts(values)] for key, values in self.done.items())

    def append(self, dataset: str, names: Sequence[str], scores: Mapping[str, Mapping], blur: Sequence[float]) -> None:
        """Writes the scores of a batch: scores[row][metric] and `blur` in the order of the names."""
        with files.named(self.path), self.path.open("a", **TEXT) as file:
            writer = csv.writer(file)
            for i, name in enumerate(names):
                for row, values in scores.items():
                    numbers = [round(float(x), DIGITS) for x in (*(values[m][i] for m in self.metrics), blur[i])]
                    self.done[dataset, name, row] = numbers
                    writer.writerow([dataset, name, row, *_texts(numbers)])

    def has(self, dataset: str, name: str, rows: Sequence[str]) -> bool:
        """True when the image was scored in all rows."""
        return all((dataset, name, row) in self.done for row in rows)

    def scores(self, dataset: str, places: Mapping[str, tuple[int, int]], rows: Sequence[str]) -> Scores:
        """What was found for the images, whose names are the keys of `places`."""
        lines = {row: [self.done[dataset, name, row] for name in places] for row in rows}
        values = {row: {m: [line[i] for line in lines[row]] for i, m in enumerate(self.metrics)} for row in rows}
        return Scores(list(places), values, [line[-1] for line in lines[rows[0]]], list(places.values()))


def read_sheet(path: Path, header: Sequence[str] = ()) -> list[tuple[tuple[str, str, str], list[float]]]:
    """The whole lines of an images.csv: set, image and row, and their numbers in the order of the header.

    Lines that a kill or a fault of the disk left damaged are passed over; so are all where it has another `header`.
    """
    text = path.read_bytes().decode(**{k: v for k, v in TEXT.items() if k != "newline"}) if path.is_file() else ""
    found, lines = [], csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    try:
        top = next(lines, [])
        if top[:3] != HEAD or (header and top != list(header)):
            return []
        for line in lines:
            with contextlib.suppress(ValueError):  # no numbers
                if len(line) == len(top):
                    found.append((tuple(line[:3]), [float(x) for x in line[3:]]))
    except csv.Error:  # what comes after this is a part of one endless field
        pass
    return found


def _texts(numbers: Sequence[float]) -> list[str]:
    return [f"{x:.{DIGITS}f}" for x in numbers]
