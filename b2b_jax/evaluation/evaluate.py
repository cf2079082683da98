"""The evaluation stage: every row of the table, on every test set, image by image. Rows:

    input         the blurry photo                 deblurrer   D_K(y), the frozen deblurrer alone
    fixed_filter  the best of a family, see filters.py         blur2blur   D_K(G(y))
    true_kernels  D_K(G'(y)), G' trained towards the true known kernels instead of what the blur extractor makes
    paired        a deblurrer trained on the camera's own pairs: the upper bound
    oracle        D_K on the same photo with a truly known blur

How they are scored stands in protocols.py. A killed evaluation goes on where it stopped, as long as its weights and
settings are the same.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from b2b_jax import metrics, networks, niqe, sharding
from b2b_jax.data import domains, pipeline
from b2b_jax.data.sources import Source
from b2b_jax.errors import UserError
from b2b_jax.evaluation import converter, examples, filters, lpips, protocols, temporal
from b2b_jax.evaluation.photographs import LARGEST_TILE, clock, tiles
from b2b_jax.evaluation.scoring import Clock, Method, Reduced, Scores, Setup, Sheet, score
from b2b_jax.files import read_json, write_json
from b2b_jax.inference import batching
from b2b_jax.networks import WEIGHTS, load
from b2b_jax.stages import deblurrer, translator
from b2b_jax.stages.common import read_summary
from b2b_jax.stages.run import Run, centre_crops

TRAINED = ("deblurrer", "blur_extractor", "translator")
FILTER_IMAGES, FILTER_CROP = 24, 256  # photos, and pixels of their centres, on which the fixed filter is chosen
# Keys that leave the scores of an unfinished evaluation as they are.
PASSIVE = {
    *("images", "batch", "megapixels", "examples", "extremes", "ablation", "converter"),
    *("validation_images", "validation_crop"),
}

TIMING = ("seconds", "timing", "scored", "device")


def evaluate(run: Run) -> None:
    """Scores the run's system on its test sets and writes results.json, evaluation/images.csv and the examples.

    Without truth to score against, only the examples are written. Of several processes only the first scores.
    """
    start, folder = time.monotonic(), run.workdir / "evaluation"
    if run.config.evaluation.paired:
        train_paired(run)
    if run.config.evaluation.true_kernels:
        train_true_kernels(run)
    if not sharding.is_first():
        return
    keep_or_clear(folder, inputs(run))
    restore = {name: networks.runner(run.network(name)) for name in ("deblurrer", "translator")}
    setup, results = make_setup(run, folder), []
    for name, source in test_sets(run).items():
        results.append(evaluate_set(run, restore, name, source, setup))
    if run.config.evaluation.photographs:
        examples.show(folder / "examples", restore, "clock_motion (a real blur)", clock())
    if not results:
        show_photos(run, restore, folder / "examples")
    judged = converter.judge(run, restore["translator"]) if run.config.evaluation.converter.enabled else {}
    write_results(run, results, setup.clock, time.monotonic() - start, judged)


def evaluate_set(run: Run, restore: Mapping[str, Callable], name: str, source: Source, setup: Setup) -> dict:
    """Scores one test set and saves its examples; returns its entry of results.json."""
    settings = run.config.evaluation
    label, protocol = protocols.choose(settings.protocol, name)
    source = Reduced(source, protocol.short_side) if protocol.short_side else source
    with setup.clock.part("choosing"):
        methods, notes = make_methods(run, restore, source, setup.sheet.path.parent / f"{name}.json")
    extras = open_extras(run)
    measure = protocols.make_measure(protocol, {key: scorer for key, (scorer, _) in extras.items()})
    scores = score(name, source, methods, measure, setup)
    chosen = examples.choose(scores, settings.examples, settings.extremes)
    pictures = setup.sheet.path.parent / "examples"
    with setup.clock.part("pictures"):
        examples.write(pictures, name, source, methods, restore["translator"], scores, chosen)
    notes |= {key: note for key, (_, note) in extras.items() if note}
    notes |= {temporal.NAME: temporal.NOTE} if temporal.NAME in metric_names(run) and name in temporal.VIDEOS else {}
    return entry(name, scores, notes) | {"protocol": label, "protocol_text": protocol.text}


def entry(name: str, scores: Scores, notes: Mapping[str, str]) -> dict:
    """A test set's part of results.json."""
    return {"dataset": name, "images": len(scores.names), "rows": scores.rows(), "notes": dict(notes)}


def check(run: Run) -> None:
    """UserError when the photos cannot give what the config asks to evaluate."""
    settings = run.config.evaluation
    if settings.paired and (run.unknown.pairs is None or run.unknown.validation is None):
        raise UserError("evaluation.paired needs the camera's own pairs; this dataset has none, set it to False")
    if settings.true_kernels and run.config.data.unknown != "scenes":
        raise UserError("evaluation.true_kernels needs generated blur (data.unknown=scenes); set it to False")
    if settings.photographs and run.config.data.scenes.size > LARGEST_TILE:
        raise UserError(f"evaluation.photographs needs data.scenes.size of at most {LARGEST_TILE}, or set it to False")
    protocols.choose(settings.protocol, run.config.data.unknown)
    open_extras(run)
    if temporal.NAME in metric_names(run) and run.unknown.test:
        temporal.check(camera_set(run), run.unknown.test)
    if settings.converter.enabled:
        converter.check(run)


def test_sets(run: Run) -> dict[str, Source]:
    """The camera's test pairs and, if asked for, scikit-image's photographs under the same generated blur."""
    sets = {camera_set(run): run.unknown.test} if run.unknown.test else {}
    if run.config.evaluation.photographs:
        settings = run.config.data.scenes
        known, unknown = settings.known_kernel.to_dict(), settings.unknown_kernel.to_dict()
        sets["photographs"] = domains.scored("photographs", tiles(settings.size), unknown, known, settings.seed + 3)
    return sets


def camera_set(run: Run) -> str:
    """The name of the camera's test set."""
    return "test" if run.config.data.unknown_blur else run.config.data.unknown


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


def show_photos(run: Run, restore: Mapping[str, Callable], folder: Path) -> None:
    """The first photos of a camera that has no truth, as examples."""
    print("evaluation: no scores, for want of truth (--config.data.test_blur=DIR --config.data.test_sharp=DIR)")
    for index in range(min(run.config.evaluation.examples, len(run.unknown.blur))):
        record = run.unknown.blur[index]
        examples.show(folder, restore, f"{index} {Path(record['name']).stem}", record["image"])


# -------------------------------------------------------------------------------------------------------------- methods


def make_methods(
    run: Run, restore: Mapping[str, Callable], source: Source, memory: Path
) -> tuple[dict[str, Method], dict[str, str]]:
    """The rows of the table, in its order, and what a row needs said. `memory` keeps the filter that was chosen."""
    notes = {}
    deblur, translate = restore["deblurrer"], restore["translator"]
    methods = {"input": lambda p: p["blurry"], "deblurrer": lambda p: deblur(p["blurry"])}
    if run.config.evaluation.fixed_filter:
        best = remembered_filter(memory) or choose_filter(deblur, source, run.config.evaluation.batch)
        write_json(memory, {"fixed_filter": best.name})
        notes["fixed_filter"] = best.name
        methods["fixed_filter"] = lambda p: best.after(np.asarray(deblur(best.before(np.asarray(p["blurry"])))))
    methods["blur2blur"] = lambda p: deblur(translate(p["blurry"]))
    if run.config.evaluation.true_kernels:
        ideal = networks.runner(load(run.workdir / "true_kernels" / WEIGHTS, run.dtype))
        methods["true_kernels"] = lambda p: deblur(ideal(p["blurry"]))
    if run.config.evaluation.paired:
        paired = networks.runner(load(run.workdir / "paired" / WEIGHTS, run.dtype))
        methods["paired"] = lambda p: paired(p["blurry"])
    if run.config.evaluation.oracle and "known_blurry" in source[0]:
        methods["oracle"] = lambda p: deblur(p["known_blurry"])
    return methods, notes


def remembered_filter(memory: Path) -> filters.Filter | None:
    """The filter that an unfinished evaluation had chosen."""
    name = (read_json(memory) or {}).get("fixed_filter")
    return next((one for one in filters.family() if one.name == name), None)


def choose_filter(deblur: Callable, source: Source, batch: int) -> filters.Filter:
    """The best fixed filter for photos evenly spread over `source`, chosen with their truth, on their centres."""
    spread = [source[int(i)] for i in np.linspace(0, len(source) - 1, min(FILTER_IMAGES, len(source)))]
    photos = centre_crops(spread, 0, FILTER_CROP)
    return filters.choose(
        restore=lambda x: batching.run(deblur, x, batch),
        score=lambda x: float(np.mean(metrics.psnr(metrics.round8(x), photos["sharp"]))),
        blurry=photos["blurry"],
    )


# -------------------------------------------------------------------------------------------------------------- scoring


def metric_names(run: Run) -> list[str]:
    """PSNR, SSIM and what `evaluation.metrics` adds, which the command line may give with commas."""
    names = [name.strip() for item in run.config.evaluation.metrics for name in item.split(",")]
    for name in names:
        if name not in protocols.METRICS:
            raise UserError(f"evaluation.metrics names {name!r}; it can have {', '.join(protocols.METRICS)}")
    return [name for name in protocols.METRICS if name in ("psnr", "ssim", *names)]


def open_extras(run: Run) -> dict[str, tuple[protocols.Score, str]]:
    """The scorers beyond PSNR and SSIM, by metric, and what must be said of them."""
    settings, extras = run.config.evaluation, {}
    for name in metric_names(run)[2:]:
        if name == temporal.NAME:
            continue  # which takes two frames, not one
        if name == "niqe":
            parameters = open_niqe(settings.niqe_parameters)
            extras[name] = protocols.natural(parameters), f"lower is better; parameters fitted to {parameters.source}"
        elif name == "lpips":
            opened = lpips.open_weights(Path(settings.lpips.vgg), Path(settings.lpips.lin))
            extras[name] = lpips.scorer(opened), "lower is better; VGG16, version 0.1"
        else:
            extras[name] = protocols.EXTRAS[name], ""
    return extras


def open_niqe(path: str) -> niqe.Parameters:
    """The parameters that the config names, or those that come with the package; UserError when they cannot be read."""
    try:
        return niqe.load(path or niqe.DEFAULT)
    except (ValueError, OSError) as error:
        raise UserError(f"evaluation.niqe_parameters: {error}") from error


def make_setup(run: Run, folder: Path) -> Setup:
    """What all test sets of the evaluation share."""
    settings = run.config.evaluation
    return Setup(
        sheet=Sheet(folder / "images.csv", metric_names(run)),
        clock=Clock(),
        images=settings.images,
        batch=settings.batch,
        megapixels=settings.megapixels,
        threads=run.config.data.threads,
        pictures=folder / "images" if settings.save_images else None,
    )


# -------------------------------------------------------------------------------------------------------------- writing


def inputs(run: Run) -> dict:
    """What the scores depend on: the settings, and the weights by their SHA-256."""
    settings = {k: v for k, v in as_json(run.config.evaluation).items() if k not in PASSIVE}
    return {"settings": settings, "weights": digests(run)}


def digests(run: Run) -> dict[str, str]:
    """SHA-256 of the weights that are there."""
    paths = {stage: run.weights_path(stage) for stage in ("deblurrer", "translator")}
    further = [stage for stage in ("paired", "true_kernels") if run.config.evaluation[stage]]
    paths |= {stage: run.workdir / stage / WEIGHTS for stage in further}
    found = {}
    for stage, path in paths.items():
        if path.is_file():
            with path.open("rb") as file:
                found[stage] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def as_json(settings) -> dict:
    """A section of the configuration as JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(settings.to_dict()))


def keep_or_clear(folder: Path, now: dict) -> None:
    """Keeps the scores of an unfinished evaluation of the same inputs; clears the folder of any other."""
    if read_json(folder / "inputs.json") != now:
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(folder / "examples", ignore_errors=True)
    write_json(folder / "inputs.json", now)


def write_results(run: Run, sets: list[dict], clock: Clock, seconds: float, judged: dict) -> None:
    """results.json: the first test set at the top, the others under `other_sets`."""
    nothing = {"dataset": None, "images": 0, "rows": {}, "notes": {}, "protocol": None, "protocol_text": ""}
    before = (read_json(run.workdir / "results.json") or {}).get("evaluation", {})
    results = {
        **(sets[0] if sets else nothing),
        "other_sets": sets[1:],
        "converter": judged,
        "train": {stage: read_summary(run.workdir / stage) for stage in TRAINED if (run.workdir / stage).is_dir()},
        "blur_extractor": read_json(run.workdir / "blur_extractor" / "scores.json"),
        "evaluation": {
            **(timing(clock, seconds) if clock.images or not before else {key: before[key] for key in TIMING}),
            "settings": as_json(run.config.evaluation),
            "weights": digests(run),
        },
    }
    write_json(run.workdir / "results.json", results)


def timing(clock: Clock, seconds: float) -> dict:
    """Where the time went; `scored` counts the images of this start, not those that a killed one had scored."""
    spent = {part: round(spent, 2) for part, spent in clock.seconds.items()}
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return dict(zip(TIMING, (round(seconds, 1), spent, clock.images, device), strict=True))


def finished(run: Run) -> bool:
    """True when results.json holds what the config asks for, scored with the weights that are there now."""
    done = (read_json(run.workdir / "results.json") or {}).get("evaluation", {})
    weights = digests(run)
    trained = {"deblurrer", "translator"} <= weights.keys()
    return trained and (done.get("weights"), done.get("settings")) == (weights, as_json(run.config.evaluation))
