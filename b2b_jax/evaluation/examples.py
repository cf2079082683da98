"""The pictures of an evaluation: photos in all their versions under evaluation/examples/, for the report.

Of a scored set these are photos evenly spread over it, and those that gain and lose the most by the translator.
Images are NHWC in [0, 1].
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from b2b_jax import images, levels, metrics
from b2b_jax.data.sources import Source, spread
from b2b_jax.evaluation.pictures import fitting, middle, part
from b2b_jax.evaluation.scores import Scores
from b2b_jax.evaluation.scoring import Method
from b2b_jax.evaluation.streams import Batch, divided, read_ahead, to_devices
from b2b_jax.files import write_json


def choose(scores: Scores, even: int, extremes: int) -> dict[int, str]:
    """Positions in `scores.names`, and what they are examples of.

    Args:
      scores: of one set.
      even: photos evenly spread over the set.
      extremes: photos with the largest gain in PSNR of blur2blur over the deblurrer, and as many with the smallest;
        none without these rows.
    """
    chosen = {}
    compared = {"blur2blur", "deblurrer"} <= scores.values.keys()
    pair = [scores.values[row]["psnr"] for row in ("blur2blur", "deblurrer")] if compared else [[], []]
    gain = np.subtract(*np.clip(pair, None, metrics.HIGHEST))
    extremes = min(extremes, len(gain) // 2)
    for kind, indices in (("largest gain", np.argsort(-gain)), ("smallest gain", np.argsort(gain))):
        chosen |= {index: f"{kind}, {gain[index]:+.2f} dB" for index in indices[:extremes].tolist()}
    for index in spread(scores.names, even):
        chosen.setdefault(index, "")
    return chosen


def write(
    folder: Path,
    dataset: str,
    source: Source,
    methods: Mapping[str, Method],
    translate: Callable | None,
    scores: Scores,
    chosen: Mapping[int, str],
) -> None:
    """Saves the chosen photos (positions in `scores.names`, and of what they are examples) in all their versions.

    They go through the networks in batches of the size that they were scored in: those programs are compiled.
    """
    positions = {scores.places[position][0]: position for position in chosen}
    batches = _batches(source, [scores.places[position] for position in chosen])
    for batch, (_, photos) in zip(batches, read_ahead(source, batches, threads=1), strict=True):
        photos = to_devices(photos)
        versions = {row: method(photos) for row, method in methods.items()}
        versions |= {"translated": translate(photos["blurry"])} if translate else {}
        versions = jax.device_get(versions | {"sharp": photos["sharp"]})
        for i, position in enumerate(positions[index] for index in batch.indices):
            captions = {row: f"{values['psnr'][position]:.2f} dB" for row, values in scores.values.items()}
            one = {row: version[i : i + 1] for row, version in versions.items()}
            save(folder, f"{dataset} {position}", one, captions, chosen[position])


def _batches(source: Source, places: Sequence[tuple[int, int]]) -> list[Batch]:
    """Photos of one size together; a place is a photo's index and the size of the batch that it goes into."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for index, fill in places:
        alike.setdefault((fill, *source.size(index)[1:]), []).append(index)
    return [batch for (fill, *_), indices in alike.items() for batch in divided(indices, fill)]


def show(folder: Path, restore: Mapping[str, Callable], title: str, photo: np.ndarray) -> None:
    """Saves the versions of a uint8 photo (h, w, 3) that has no truth; of a large one the middle, all that is shown.

    restore: networks by their stages, and those whose results are made to agree with the photo by their rows.
    """
    blurry, shown = levels.to_float(middle(photo))[None], part(photo)
    title = f"{title} ({shown})" if shown else title
    versions = {"input": blurry}
    versions |= {"deblurrer": restore["deblurrer"](blurry)} if "deblurrer" in restore else {}
    if {"deblurrer", "kernel_field"} <= restore.keys():
        versions["kernel_field"] = restore["deblurrer"](restore["kernel_field"](blurry))
    versions |= {"consistent": restore["consistent"](blurry)} if "consistent" in restore else {}
    if {"deblurrer", "translator"} <= restore.keys():
        versions["translated"] = restore["translator"](blurry)
        versions["blur2blur"] = restore["deblurrer"](versions["translated"])
    versions |= {"adapted": restore["adaptation"](blurry)} if "adaptation" in restore else {}
    if "adapted_consistent" in restore:
        versions["adapted_consistent"] = restore["adapted_consistent"](blurry)
    save(folder, title, versions, {})


def save(
    folder: Path, title: str, versions: Mapping[str, np.ndarray], captions: Mapping[str, str], kind: str = ""
) -> None:
    """One folder per example: a PNG per version (the first of n, h, w, 3), and example.json with title and captions."""
    folder = folder / fitting(title.split(" (")[0].replace(" ", "-").replace("/", "-"))
    shutil.rmtree(folder, ignore_errors=True)
    for label, version in versions.items():
        images.write(folder / f"{label}.png", levels.to_uint8(jax.device_get(version[0])))
    record = {"title": title, "kind": kind, "labels": list(versions), "captions": dict(captions)}
    write_json(folder / "example.json", record)
