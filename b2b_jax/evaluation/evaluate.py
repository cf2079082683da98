"""The evaluation stage: every row of the table, on every test set, image by image.

PSNR and SSIM are those of the field: RGB, whole image, results rounded to 8 bits; SSIM with an 11x11 Gaussian per
channel (Wang et al. 2004). Rows:

    input         the blurry photo                 deblurrer   D_K(y), the frozen deblurrer alone
    fixed_filter  the best of a family, see filters.py         blur2blur   D_K(G(y))
    true_kernels  D_K(G'(y)), G' trained towards the true known kernels instead of what the blur extractor makes
    paired        a deblurrer trained on the camera's own pairs: the upper bound
    oracle        D_K on the same photo with a truly known blur
"""

import csv
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from b2b_jax import images, metrics, sharding
from b2b_jax.data import domains, pipeline
from b2b_jax.data.sources import Source
from b2b_jax.errors import UserError
from b2b_jax.evaluation import filters
from b2b_jax.evaluation.photographs import LARGEST_TILE, clock, tiles
from b2b_jax.files import read_json, write_json
from b2b_jax.inference import pipeline as inference
from b2b_jax.training.run import WEIGHTS, Run, centre_crops, load
from b2b_jax.training.stages import deblurrer, translator
from b2b_jax.training.stages.common import read_summary

PROTOCOL = "RGB, whole image, 8-bit rounded; PSNR peak 255; SSIM 11x11 Gaussian, sigma 1.5, per channel, valid part"
TRAINED = ("deblurrer", "blur_extractor", "translator")
FILTER_IMAGES, FILTER_CROP = 24, 256  # photos, and pixels of their centres, on which the fixed filter is chosen

Photos = Mapping[str, np.ndarray]  # float32 images (n, h, w, 3) under "blurry", "sharp", maybe "known_blurry"
Method = Callable[[Photos], np.ndarray]


@dataclass
class Scores:
    """Per-image values of one test set: values[row][metric] is a list in the order of `names`."""

    names: list[str]
    values: dict[str, dict[str, list[float]]]

    def rows(self) -> dict[str, dict[str, float]]:
        """Mean and standard error of every row, the entries of results.json."""
        return {row: _summary(values) for row, values in self.values.items()}


def evaluate(run: Run) -> None:
    """Scores the run's system on its test sets and writes results.json, evaluation/images.csv and the examples.

    Without truth to score against, only the examples are written. Of several processes only the first scores.
    """
    start = time.monotonic()
    if run.config.evaluation.paired:
        train_paired(run)
    if run.config.evaluation.true_kernels:
        train_true_kernels(run)
    if not sharding.is_first():
        return
    shutil.rmtree(run.workdir / "evaluation", ignore_errors=True)
    restore = {name: inference.runner(run.network(name)) for name in ("deblurrer", "translator")}
    sets, scores, notes = test_sets(run), {}, {}
    for name, source in sets.items():
        methods, notes[name] = make_methods(run, restore, source)
        scores[name] = score(name, source, methods, run.config.evaluation)
        write_examples(run, name, source, methods, restore["translator"], scores[name])
    if run.config.evaluation.photographs:
        show(run, restore, "clock_motion (a real blur)", clock())
    if not scores:
        print("evaluation: no scores, for want of truth (--config.data.test_blur=DIR --config.data.test_sharp=DIR)")
        for index in range(min(run.config.evaluation.examples, len(run.unknown.blur))):
            record = run.unknown.blur[index]
            show(run, restore, f"{index} {Path(record['name']).stem}", record["image"])
    write_csv(run.workdir / "evaluation" / "images.csv", scores)
    write_results(run, scores, notes, time.monotonic() - start)


def check(run: Run) -> None:
    """UserError when the photos cannot give what the config asks to evaluate."""
    if run.config.evaluation.paired and (run.unknown.pairs is None or run.unknown.validation is None):
        raise UserError("evaluation.paired needs the camera's own pairs; this dataset has none, set it to False")
    if run.config.evaluation.true_kernels and run.config.data.unknown != "scenes":
        raise UserError("evaluation.true_kernels needs generated blur (data.unknown=scenes); set it to False")
    if run.config.evaluation.photographs and run.config.data.scenes.size > LARGEST_TILE:
        raise UserError(f"evaluation.photographs needs data.scenes.size of at most {LARGEST_TILE}, or set it to False")


def test_sets(run: Run) -> dict[str, Source]:
    """The camera's test pairs and, if asked for, scikit-image's photographs under the same generated blur."""
    own = bool(run.config.data.unknown_blur)
    sets = {"test" if own else run.config.data.unknown: run.unknown.test} if run.unknown.test else {}
    if run.config.evaluation.photographs:
        settings = run.config.data.scenes
        known, unknown = settings.known_kernel.to_dict(), settings.unknown_kernel.to_dict()
        sets["photographs"] = domains.scored("photographs", tiles(settings.size), unknown, known, settings.seed + 3)
    return sets


def train_paired(run: Run) -> None:
    """Trains the upper bound once: the same deblurrer, on the true pairs of `unknown_blur`."""
    folder = run.workdir / "paired"
    if not (folder / WEIGHTS).is_file():
        deblurrer.fit(run, folder, run.unknown.pairs, pipeline.Crop, run.unknown.validation)


def train_true_kernels(run: Run) -> None:
    """Trains once the translator that the blur extractor would ideally give: K made with the true known kernels."""
    folder = run.workdir / "true_kernels"
    if not (folder / WEIGHTS).is_file():
        translator.fit(run, folder, "synthetic")


# -------------------------------------------------------------------------------------------------------------- methods


def make_methods(run: Run, restore: Mapping[str, Callable], source: Source) -> tuple[dict[str, Method], dict[str, str]]:
    """The rows of the table, in its order, and what a row needs said."""
    notes = {}
    deblur, translate = restore["deblurrer"], restore["translator"]
    methods = {"input": lambda p: p["blurry"], "deblurrer": lambda p: deblur(p["blurry"])}
    if run.config.evaluation.fixed_filter:
        best = choose_filter(deblur, source, run.config.evaluation.batch)
        notes["fixed_filter"] = best.name
        methods["fixed_filter"] = lambda p: best.after(np.asarray(deblur(best.before(p["blurry"]))))
    methods["blur2blur"] = lambda p: deblur(translate(p["blurry"]))
    if run.config.evaluation.true_kernels:
        ideal = inference.runner(load(run.workdir / "true_kernels" / WEIGHTS, run.dtype))
        methods["true_kernels"] = lambda p: deblur(ideal(p["blurry"]))
    if run.config.evaluation.paired:
        paired = inference.runner(load(run.workdir / "paired" / WEIGHTS, run.dtype))
        methods["paired"] = lambda p: paired(p["blurry"])
    if run.config.evaluation.oracle and "known_blurry" in source[0]:
        methods["oracle"] = lambda p: deblur(p["known_blurry"])
    return methods, notes


def choose_filter(deblur: Callable, source: Source, batch: int) -> filters.Filter:
    """The best fixed filter for photos evenly spread over `source`, chosen with their truth, on their centres."""
    spread = [source[int(i)] for i in np.linspace(0, len(source) - 1, min(FILTER_IMAGES, len(source)))]
    photos = centre_crops(spread, 0, FILTER_CROP)
    return filters.choose(
        restore=lambda x: inference.run(deblur, x, batch),
        score=lambda x: float(np.mean(metrics.psnr(metrics.round8(x), photos["sharp"]))),
        blurry=photos["blurry"],
    )


# -------------------------------------------------------------------------------------------------------------- scoring


def score(name: str, source: Source, methods: Mapping[str, Method], settings) -> Scores:
    """PSNR and SSIM of every method on the first `settings.images` photos of `source` (0 = all)."""
    count = min(settings.images or len(source), len(source))
    scores = Scores([], {row: {"psnr": [], "ssim": []} for row in methods})
    with tqdm(total=count, desc=f"evaluation: {name}", unit="image", dynamic_ncols=True) as bar:
        for names, photos in groups(source, settings.batch, count):
            for row, method in methods.items():
                restored = metrics.round8(method(photos))
                for metric, function in (("psnr", metrics.psnr), ("ssim", metrics.ssim)):
                    values = np.asarray(function(restored, photos["sharp"]))[: len(names)]
                    scores.values[row][metric] += values.astype(float).tolist()
            scores.names += names
            bar.update(len(names))
    return scores


def groups(source: Source, batch: int, count: int | None = None) -> Iterator[tuple[list[str], Photos]]:
    """Batches of consecutive records of one size: their names, and their images as floats.

    A batch that ends early repeats its last image up to `batch`, so that one program serves a whole test set; the names
    say how many images count.
    """
    records = []
    for index in range(len(source) if count is None else count):
        record = source[index]
        if records and (len(records) == batch or record["sharp"].shape != records[0]["sharp"].shape):
            yield _group(records, batch)
            records = []
        records.append(record)
    yield _group(records, batch)


def _group(records: list[dict], batch: int) -> tuple[list[str], Photos]:
    filled = records + records[-1:] * (batch - len(records))
    keys = [key for key in records[0] if key != "name"]
    return [r["name"] for r in records], {k: images.to_float(np.stack([r[k] for r in filled])) for k in keys}


def _summary(values: Mapping[str, list[float]]) -> dict[str, float]:
    summary = {}
    for metric, numbers in values.items():
        summary[metric] = float(np.mean(numbers))
        summary[f"{metric}_error"] = float(np.std(numbers, ddof=1) / np.sqrt(len(numbers))) if len(numbers) > 1 else 0.0
    return summary


# -------------------------------------------------------------------------------------------------------------- writing


def write_csv(path: Path, scores: Mapping[str, Scores]) -> None:
    """One line per test set, image and row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["dataset", "image", "row", "psnr", "ssim"])
        for name, result in scores.items():
            for row, values in result.values.items():
                for image, psnr, ssim in zip(result.names, values["psnr"], values["ssim"], strict=True):
                    writer.writerow([name, image, row, f"{psnr:.4f}", f"{ssim:.5f}"])


def write_results(run: Run, scores: Mapping[str, Scores], notes: dict, seconds: float) -> None:
    """results.json: the first test set at the top, the others under `other_sets`."""
    nothing = {"dataset": None, "images": 0, "rows": {}, "notes": {}}
    sets = [{"dataset": n, "images": len(s.names), "rows": s.rows(), "notes": notes[n]} for n, s in scores.items()]
    results = {
        **(sets[0] if sets else nothing),
        "protocol": PROTOCOL,
        "other_sets": sets[1:],
        "train": {stage: read_summary(run.workdir / stage) for stage in TRAINED if (run.workdir / stage).is_dir()},
        "blur_extractor": read_json(run.workdir / "blur_extractor" / "scores.json"),
        "evaluation": {"seconds": round(seconds, 1), "settings": run.config.evaluation.to_dict()},
    }
    write_json(run.workdir / "results.json", results)


def finished(run: Run) -> bool:
    """True when results.json holds what the config asks for, scored with the weights that are there now."""
    path = run.workdir / "results.json"
    if not path.is_file():
        return False
    inputs = [run.weights_path(stage) for stage in ("deblurrer", "translator")]
    if any(not p.is_file() or p.stat().st_mtime > path.stat().st_mtime for p in inputs):
        return False
    results = read_json(path)
    return bool(results) and results["evaluation"]["settings"] == run.config.evaluation.to_dict()


def write_examples(
    run: Run, dataset: str, source: Source, methods: Mapping[str, Method], translate: Callable, scores: Scores
) -> None:
    """Saves photos evenly spread over the set, in all their versions, under evaluation/examples/."""
    count = min(run.config.evaluation.examples, len(scores.names))
    for index in np.linspace(0, len(scores.names) - 1, count).astype(int):
        _, photos = _group([source[index]], 1)
        versions = {row: method(photos) for row, method in methods.items()}
        versions |= {"translated": translate(photos["blurry"]), "sharp": photos["sharp"]}
        captions = {row: f"{values['psnr'][index]:.2f} dB" for row, values in scores.values.items()}
        save_example(run, f"{dataset} {index}", versions, captions)


def show(run: Run, restore: Mapping[str, Callable], title: str, photo: np.ndarray) -> None:
    """Saves the versions of a uint8 photo (h, w, 3) that has no truth."""
    blurry = images.to_float(photo)[None]
    translated = restore["translator"](blurry)
    versions = {"input": blurry, "deblurrer": restore["deblurrer"](blurry), "translated": translated}
    save_example(run, title, versions | {"blur2blur": restore["deblurrer"](translated)}, {})


def save_example(run: Run, title: str, versions: Mapping[str, np.ndarray], captions: Mapping[str, str]) -> None:
    """One folder per example: a PNG per version (1, h, w, 3), and example.json with the title and the captions."""
    folder = run.workdir / "evaluation" / "examples" / title.split(" (")[0].replace(" ", "-")
    for label, version in jax.device_get(dict(versions)).items():
        images.write(folder / f"{label}.png", images.to_uint8(version[0]))
    record = {"title": title, "labels": list(versions), "captions": dict(captions)}
    write_json(folder / "example.json", record)
