"""Scores methods on a test set of any size, as a stream: nothing but the batch at hand is kept in memory.

Photos are read ahead by threads and go through the methods in batches of one size; every batch's scores are appended
to images.csv before the next one starts, so that a run that was killed resumes behind its last whole batch.
Images are NHWC float32 in [0, 1].
"""

import contextlib
import csv
import hashlib
import io
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from b2b_jax import files, images, metrics, sharding
from b2b_jax.data.sources import Record, Source
from b2b_jax.evaluation import temporal
from b2b_jax.evaluation.protocols import Measure, reduce
from b2b_jax.method.curriculum import laplacian_variance

Photos = Mapping[str, np.ndarray]  # images (n, h, w, 3) under "blurry", "sharp", maybe "known_blurry"
Method = Callable[[Photos], np.ndarray]
PARTS = ("choosing", "reading", "compiling", "networks", "metrics", "writing", "pictures")  # choosing: a fixed filter
AHEAD = 2  # batches that are read while one is computed
LONGEST_NAME = 200  # bytes; file systems take 255, with the suffix and the mark of a draft
DIGITS = 6  # decimals in images.csv, and in what is averaged: a resumed evaluation gives the same means


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

    def rows(self) -> dict[str, dict[str, float]]:
        """Mean and standard error of every row, and of its gain in PSNR over the deblurrer: results.json's entries."""
        rows = {row: _summary(values) for row, values in self.values.items()}
        if "deblurrer" in self.values:
            for row, values in self.values.items():
                gain = np.subtract(values["psnr"], self.values["deblurrer"]["psnr"])
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


# -------------------------------------------------------------------------------------------------------------- streams


class Reduced:
    """A source whose photos are reduced to a shorter side of `short_side` pixels."""

    def __init__(self, source: Source, short_side: int):
        self.source, self.short_side = source, short_side

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Record:
        record = self.source[index]
        return {k: v if k == "name" else reduce(v, self.short_side) for k, v in record.items()}

    def size(self, index: int) -> tuple[str, int, int]:
        """Name, height and width after the reduction."""
        name, h, w = self.source.size(index)
        return name, *reduce(np.broadcast_to(np.uint8(0), (h, w, 1)), self.short_side).shape[:2]


class Batch(NamedTuple):
    """Records of one size: their indices, and the size of the array that they fill, the last one repeated."""

    indices: list[int]
    fill: int


def plan(sizes: Sequence[tuple[int, int]], batch: int, megapixels: float, devices: int = 1) -> list[Batch]:
    """Divides photos of the sizes (height, width) into batches of equal size, sizes in the order of their first photo.

    A batch has at most `batch` photos and, but for a single one, `megapixels`; one program serves all of a size, and
    its photos can be shared evenly by the devices.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(tuple(size), []).append(index)
    batches = []
    for (h, w), indices in groups.items():
        count = max(1, min(batch, len(indices), int(megapixels * 1e6 / (h * w))))
        fill = -(-count // devices) * devices
        batches += [Batch(indices[start : start + fill], fill) for start in range(0, len(indices), fill)]
    return batches


def read_ahead(source: Source, batches: Sequence[Batch], threads: int) -> Iterator[tuple[list[str], Photos]]:
    """Names and float images of every batch; threads decode the next ones meanwhile."""
    with ThreadPoolExecutor(threads) as pool:
        pending = deque()
        for batch in batches:
            pending.append((batch, [pool.submit(source.__getitem__, index) for index in batch.indices]))
            if len(pending) > AHEAD:
                yield _stack(*pending.popleft())
        while pending:
            yield _stack(*pending.popleft())


def _stack(batch: Batch, futures: list) -> tuple[list[str], Photos]:
    records = [future.result() for future in futures]
    filled = records + records[-1:] * (batch.fill - len(records))
    keys = [key for key in records[0] if key != "name"]
    return [r["name"] for r in records], {k: images.to_float(np.stack([r[k] for r in filled])) for k in keys}


# ---------------------------------------------------------------------------------------------------------------- sheet


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


# -------------------------------------------------------------------------------------------------------------- scoring


@dataclass(frozen=True)
class Setup:
    """What the test sets of one evaluation share.

    images: photos of each set; 0 = all. batch, megapixels: of the photos that go through a network at once.
    pictures: the folder for results as PNG; None = none.
    """

    sheet: Sheet
    clock: Clock
    images: int = 0
    batch: int = 8
    megapixels: float = 8.0
    threads: int = 2
    pictures: Path | None = None


def score(name: str, source: Source, methods: Mapping[str, Method], measure: Measure, setup: Setup) -> Scores:
    """Scores every method on the test set `name`, apart from what the sheet holds already."""
    count = min(setup.images or len(source), len(source))
    with ThreadPoolExecutor(setup.threads) as pool:
        names, *sides = zip(*pool.map(source.size, range(count)), strict=True)
    batches = plan(list(zip(*sides, strict=True)), setup.batch, setup.megapixels, jax.device_count())
    new = [not all(setup.sheet.has(name, names[i], list(methods)) for i in batch.indices) for batch in batches]
    neighbours = temporal.Neighbours(name) if temporal.NAME in setup.sheet.metrics else None
    wanted = temporal.needed(new, [[names[i] for i in batch.indices] for batch in batches]) if neighbours else new
    todo = [(batch, is_new) for batch, is_new, run in zip(batches, new, wanted, strict=True) if run]
    done = count - sum(len(batch.indices) for batch, is_new in todo if is_new)
    stream = read_ahead(source, [batch for batch, _ in todo], setup.threads)
    with tqdm(total=count, initial=done, desc=f"evaluation: {name}", unit="image", dynamic_ncols=True) as bar:
        for _, is_new in todo:
            with setup.clock.part("reading"):
                batch_names, photos = next(stream)
            results = run_batch(methods, photos, setup.clock)
            with setup.clock.part("metrics"):
                warped = neighbours.measure(batch_names, results, photos["sharp"]) if neighbours else {}
            if not is_new:
                continue
            found, blur = score_batch(results, photos, measure, setup.clock, len(batch_names))
            for row, values in warped.items():
                found[row][temporal.NAME] = values
            with setup.clock.part("writing"):
                if setup.pictures:
                    save(setup.pictures / name, batch_names, results, _common(names), setup.threads)
                setup.sheet.append(name, batch_names, found, blur)
            setup.clock.images += len(batch_names)
            bar.update(len(batch_names))
    places = [(index, batch.fill) for batch in batches for index in batch.indices]
    return setup.sheet.scores(name, {names[index]: (index, fill) for index, fill in places}, list(methods))


def run_batch(methods: Mapping[str, Method], photos: Photos, clock: Clock) -> dict[str, jax.Array]:
    """Every method's results for the photos of one batch, rounded to 8 bits."""
    shape, photos, results = photos["sharp"].shape, to_devices(photos), {}
    for row, method in methods.items():
        with clock.part("networks", ("network", row, shape)):
            results[row] = jax.block_until_ready(metrics.round8(method(photos)))
    return results


def score_batch(
    results: Mapping[str, jax.Array], photos: Photos, measure: Measure, clock: Clock, count: int
) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray]:
    """The results' scores, and how blurred the photos are, for the first `count` of the batch."""
    found, devices = {}, to_devices(photos)
    for row, restored in results.items():
        with clock.part("metrics", ("metric", row == "input", restored.shape)):
            found[row] = {name: values[:count] for name, values in measure(restored, devices["sharp"]).items()}
    with clock.part("metrics"):
        return found, 255**2 * np.asarray(laplacian_variance(devices["blurry"]))[:count]


def to_devices(photos: Photos) -> Photos:
    """The batch, split over the devices where there are several."""
    if jax.device_count() == 1:
        return photos
    return {key: jax.device_put(value, sharding.split(sharding.make_mesh())) for key, value in photos.items()}


def _below(name: str, root: str) -> Path:
    """A photo's path below `root`, one that any disk takes and without steps upwards: a prepared dataset's names may be
    anybody's."""
    parts = [part for part in Path(os.path.relpath(name, root)).parts if part not in ("..", "/")]
    return Path(*map(fitting, parts or ["photo"]))


def fitting(part: str) -> str:
    """A name for a file or folder that any disk takes, of a part of a path that may be anything."""
    part = part.replace("\0", "_")
    if len(os.fsencode(part)) <= LONGEST_NAME:
        return part
    return f"{part[: LONGEST_NAME // 8]}-{hashlib.sha256(os.fsencode(part)).hexdigest()[:16]}"


def _common(names: Sequence[str]) -> str:
    """The folder that all of them lie in, "" for none."""
    try:
        return os.path.commonpath([os.path.dirname(name) for name in names])
    except ValueError:  # paths from the root and others
        return ""


def save(folder: Path, names: Sequence[str], results: Mapping[str, jax.Array], root: str, threads: int) -> None:
    """Writes the results as PNG: folder/<row>/<the photo's name below `root`>.png."""
    with ThreadPoolExecutor(threads) as pool:
        jobs = []
        for row, pictures in results.items():
            paths = [folder / row / _below(name, root) for name in names]
            paths = [path if path.suffix == ".png" else path.with_name(f"{path.name}.png") for path in paths]
            jobs += [
                pool.submit(images.write, *job)
                for job in zip(paths, images.to_uint8(pictures)[: len(names)], strict=True)
            ]
        for job in jobs:
            job.result()
