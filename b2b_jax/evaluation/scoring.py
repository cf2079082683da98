"""Scores methods on a test set of any size, as a stream: nothing but the batch at hand is kept in memory.

Photos are read ahead by threads and go through the methods in batches of one size; every batch's scores are appended
to images.csv before the next one starts, so that a run that was killed resumes behind its last whole batch.
Images are NHWC float32 in [0, 1].
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from b2b_jax import metrics, terminal
from b2b_jax.data.sources import Source
from b2b_jax.evaluation import temporal
from b2b_jax.evaluation.pictures import common, save
from b2b_jax.evaluation.protocols import Measure
from b2b_jax.evaluation.scores import Clock, Scores
from b2b_jax.evaluation.sheet import Sheet
from b2b_jax.evaluation.streams import Photos, plan, read_ahead, to_devices
from b2b_jax.method.curriculum import laplacian_variance

Method = Callable[[Photos], np.ndarray]


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
    batches = plan(list(zip(*sides, strict=True)), setup.batch, setup.megapixels, jax.local_device_count())
    new = [not all(setup.sheet.has(name, names[i], list(methods)) for i in batch.indices) for batch in batches]
    neighbours = temporal.Neighbours(name) if temporal.NAME in setup.sheet.metrics else None
    wanted = temporal.needed(new, [[names[i] for i in batch.indices] for batch in batches]) if neighbours else new
    todo = [(batch, is_new) for batch, is_new, run in zip(batches, new, wanted, strict=True) if run]
    done = count - sum(len(batch.indices) for batch, is_new in todo if is_new)
    stream = read_ahead(source, [batch for batch, _ in todo], setup.threads)
    with terminal.bar(total=count, initial=done, desc=f"evaluation: {name}", unit="image") as bar:
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
                    save(setup.pictures / name, batch_names, results, common(names), setup.threads)
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
