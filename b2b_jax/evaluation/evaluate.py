"""The evaluation: every row of the table (rows.py), on every test set, image by image, scored as protocols.py says.

It reads weights and photos and trains nothing. A killed evaluation resumes where it stopped, as long as its weights
and settings are the same.
"""

import hashlib
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax

from b2b_jax import named, niqe, weights
from b2b_jax.data import domains
from b2b_jax.data.sources import Part, Source, check_sizes
from b2b_jax.errors import UserError, shown
from b2b_jax.evaluation import converter, examples, lpips, protocols, rows, temporal
from b2b_jax.evaluation.photographs import LARGEST_TILE, clock, tiles
from b2b_jax.evaluation.rows import Table
from b2b_jax.evaluation.scores import Clock, Scores
from b2b_jax.evaluation.scoring import Setup, score
from b2b_jax.evaluation.sheet import Sheet
from b2b_jax.evaluation.streams import Reduced
from b2b_jax.files import read_json, read_object, write_json
from b2b_jax.images import ImageError
from b2b_jax.settings import as_json
from b2b_jax.stages import STAGES
from b2b_jax.stages.common import read_summary
from b2b_jax.stages.converter import check_translator
from b2b_jax.stages.run import Run

# Keys that leave the scores of an unfinished evaluation as they are.
PASSIVE = {
    *("images", "batch", "examples", "extremes", "ablation", "converter", "validation_images", "validation_crop"),
}

TIMING = ("seconds", "timing", "scored", "device")


def evaluate(run: Run) -> None:
    """Scores the run's system on its test sets and writes results.json, evaluation/images.csv and the examples.

    Without truth to score against, only the examples are written.
    """
    start, folder = time.monotonic(), run.workdir / "evaluation"
    now, megapixels = inputs(run), run.config.evaluation.megapixels
    keep_or_clear(folder, now)
    stages = [name for name in ("deblurrer", "translator", "kernel_field", "adaptation") if name in now["weights"]]
    shown = {name: run.network(name) for name in stages} | rows.agreeing(run)
    restore = {name: rows.restoring([network], megapixels) for name, network in shown.items()}
    setup, results = make_setup(run, folder), []
    for name, source in test_sets(run).items():
        results.append(evaluate_set(run, restore, name, source, setup))
    if run.config.evaluation.photographs and restore:
        examples.show(folder / "examples", restore, "clock_motion (a real blur)", clock())
    if not results and restore:
        show_photos(run, restore, folder / "examples")
    judged = converter.judge(run, restore["translator"]) if run.config.evaluation.converter.enabled else {}
    write_results(run, results, now, timing(setup.clock, time.monotonic() - start), judged)


def evaluate_set(run: Run, restore: Mapping[str, Callable], name: str, source: Source, setup: Setup) -> dict:
    """Scores one test set and saves its examples; returns its entry of results.json."""
    settings = run.config.evaluation
    label, protocol = protocols.choose(settings.protocol, name)
    source = first(source, settings.images)
    source = Reduced(source, protocol.short_side) if protocol.short_side else source
    table = Table(run, source, setup.sheet.path.parent / f"{name}.json")
    with setup.clock.part("choosing"):
        methods = rows.methods(table)
    extras = open_extras(run)
    measure = protocols.make_measure(protocol, {key: scorer for key, (scorer, _) in extras.items()})
    scores = score(name, source, methods, measure, setup)
    chosen = examples.choose(scores, settings.examples, settings.extremes)
    pictures = setup.sheet.path.parent / "examples"
    with setup.clock.part("pictures"):
        examples.write(pictures, name, source, methods, restore.get("translator"), scores, chosen)
    notes = table.notes | {key: note for key, (_, note) in extras.items() if note}
    notes |= {temporal.NAME: temporal.NOTE} if temporal.NAME in metric_names(run) and name in temporal.VIDEOS else {}
    notes |= exact_note(name, scores)
    return entry(name, scores, notes) | {"protocol": label, "protocol_text": protocol.text}


def first(source: Source, count: int) -> Source:
    """The first `count` photos of a source, 0 for all: what is scored, and what a fixed filter is chosen on."""
    return Part(source, range(count)) if 0 < count < len(source) else source


def entry(name: str, scores: Scores, notes: Mapping[str, str]) -> dict:
    """A test set's part of results.json."""
    count = len(scores.names) - len(scores.exact())
    return {"dataset": name, "images": count, "rows": scores.rows(), "notes": dict(notes)}


def exact_note(name: str, scores: Scores) -> dict[str, str]:
    """The note on pairs that are left out of the means, which is printed, too; UserError when no others are left."""
    names = [scores.names[i] for i in scores.exact()]
    if not names:
        return {}
    text = f"{len(names)} of {len(scores.names)} pairs, in which the blurry photo or a result equals the truth: "
    text += ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    if len(names) == len(scores.names):
        raise UserError(f"evaluation: {name}: {text}; nothing is left to score: are the test photos really blurry?")
    print(shown(f"evaluation: {name}: left out of the means are {text}"))
    return {"exact": text}


def check(run: Run) -> None:
    """UserError when the photos cannot give what the config asks to evaluate."""
    settings = run.config.evaluation
    if settings.photographs and run.config.data.scenes.size > LARGEST_TILE:
        raise UserError(f"evaluation.photographs needs data.scenes.size of at most {LARGEST_TILE}, or set it to False")
    open_extras(run)
    rows.check(run)
    if settings.converter.enabled:
        check_translator(run)
    if temporal.NAME in metric_names(run) and run.unknown.test:
        temporal.check(camera_set(run), run.unknown.test)
    check_large_enough(run, *protocols.choose(settings.protocol, run.config.data.unknown))


def check_large_enough(run: Run, label: str, protocol: protocols.Protocol) -> None:
    """UserError when photos to score on are too small for the protocol, called `label`, or a metric."""
    data, least = run.config.data, protocols.smallest(protocol, metric_names(run))
    need = f"the protocol {label!r} with its metrics"
    generated = data.unknown == "scenes" and not domains.own(data)
    if data.scenes.size < least and (generated or run.config.evaluation.photographs):
        raise UserError(f"data.scenes.size is {data.scenes.size}, smaller than the {least} pixels that {need} needs")
    if not generated and run.unknown.test:
        check_sizes(first(run.unknown.test, run.config.evaluation.images), least, need=need)


def test_sets(run: Run) -> dict[str, Source]:
    """The camera's test pairs and, if asked for, scikit-image's photographs under the same generated blur."""
    sets = {camera_set(run): run.unknown.test} if run.unknown.test else {}
    if run.config.evaluation.photographs:
        settings = run.config.data.scenes
        sets["photographs"] = domains.scored("photographs", tiles(settings.size), settings, settings.seed + 3)
    return sets


def camera_set(run: Run) -> str:
    """The name of the camera's test set."""
    return "test" if domains.own(run.config.data) else run.config.data.unknown


def show_photos(run: Run, restore: Mapping[str, Callable], folder: Path) -> None:
    """The first photos of a camera that has no truth, as examples."""
    print("evaluation: no scores, for want of truth (--config.data.test_blur=DIR --config.data.test_sharp=DIR)")
    for index in range(min(run.config.evaluation.examples, len(run.unknown.blur))):
        record = run.unknown.blur[index]
        examples.show(folder, restore, f"{index} {Path(record['name']).stem}", record["image"])


# -------------------------------------------------------------------------------------------------------------- scoring


def metric_names(run: Run) -> list[str]:
    """PSNR, SSIM and what `evaluation.metrics` adds."""
    names = named.names(run.config.evaluation.metrics)
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
        threads=max(1, run.config.data.threads),  # 0 is for training alone, which then reads as it computes
        pictures=folder / "images" if settings.save_images else None,
    )


# -------------------------------------------------------------------------------------------------------------- writing


def inputs(run: Run) -> dict:
    """What the scores depend on: the settings, the SHA-256 of the weights, and the digest of the test photos."""
    settings = {k: v for k, v in as_json(run.config.evaluation).items() if k not in PASSIVE}
    if run.config.evaluation.fixed_filter:  # which is chosen on the photos that are scored
        settings["images"] = run.config.evaluation.images
    digest = domains.scored_digest(run.config.data)
    return {"settings": settings, "weights": digests(run)} | ({"photos": digest} if digest else {})


def same_photos(run: Run, scored: str) -> bool:
    """True when the test photos are those of the digest `scored`; "" for none, or of an older version.

    A dataset that is gone since, that was prepared since, or of which an older version kept no digest, is taken for
    the same; and so are your own when none are given any more, so that what was measured stays.
    """
    own = domains.takes_test_photos(run.config.data)
    try:
        now = domains.scored_digest(run.config.data)
        if own:
            return now in ("", scored)
        return scored == now or not (scored and scored.split()[0] == now.split()[0])
    except (UserError, ImageError):  # the photos are missing; of your own the check says so
        return not own


def deblurrer_name(run: Run) -> str:
    """What the deblurrer's weights hold, which may be another network than the configuration names; "" without any."""
    path = run.weights_path("deblurrer")
    try:
        return weights.describe(path)[0]
    except (OSError, ValueError):
        return ""


def digests(run: Run) -> dict[str, str]:
    """SHA-256 of the weights that are there, of every stage that the run needs."""
    found = {}
    for name, path in ((name, run.weights_path(name)) for name, stage in STAGES.items() if stage.needed(run)):
        if path.is_file():
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def keep_or_clear(folder: Path, now: dict) -> None:
    """Keeps the scores of an unfinished evaluation of the same inputs; clears the folder of any other."""
    if read_json(folder / "inputs.json") != now:
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(folder / "examples", ignore_errors=True)
    write_json(folder / "inputs.json", now)


def write_results(run: Run, sets: list[dict], scored: dict, times: dict, judged: dict) -> None:
    """results.json: the first test set at the top, the others under `other_sets`.

    scored: the `inputs` of the evaluation, as they were when it began. times: its `timing`; an evaluation that scored
    nothing keeps that of the one before.
    """
    nothing = {"dataset": None, "images": 0, "rows": {}, "notes": {}, "protocol": None, "protocol_text": ""}
    last = read_results(run.workdir)
    before = last.get("evaluation", {})
    results = {
        **(sets[0] if sets else nothing),
        "other_sets": sets[1:],
        "method": best_system(run, sets[0]["rows"] if sets else {}, last.get("method")),
        "converter": judged,
        "train": {stage: read_summary(run.workdir / stage) for stage in STAGES if (run.workdir / stage).is_dir()},
        **{name: read_json(run.workdir / name / "scores.json") for name in ("blur_extractor", "camera", "adaptation")},
        "evaluation": {
            **(times if times["scored"] or not before else {key: before[key] for key in TIMING}),
            **scored,
            "settings": as_json(run.config.evaluation),
            "deblurrer": deblurrer_name(run),
        },
    }
    write_json(run.workdir / "results.json", results)


def best_system(run: Run, scores: Mapping[str, Mapping[str, float]], before: str | None) -> str | None:
    """The system that `deblur` should use: the best of `scores`, if all that the run has are among them.

    Else it is that of the evaluation before, as long as the run has it.
    """
    there = rows.systems(run)
    if scores and all(name in scores for name in there):
        return rows.best(scores)
    return before if before in there else None


def read_results(workdir: Path) -> dict:
    """What results.json holds; empty when there is none, or it is damaged: then it is made anew."""
    results = read_object(workdir / "results.json")
    sets = [results, *others] if isinstance(others := results.get("other_sets"), list) else []
    evaluation = results.get("evaluation")
    if sets and all(map(_is_entry, sets)) and isinstance(evaluation, dict) and set(TIMING) <= evaluation.keys():
        return results
    return {}


def _is_entry(one: object) -> bool:
    """True for a test set's part of results.json."""
    rows = one.get("rows") if isinstance(one, dict) else None
    values = list(rows.values()) if isinstance(rows, dict) else [None]
    numbers = all(isinstance(v, dict) and all(isinstance(x, int | float) for x in v.values()) for v in values)
    return numbers and all("psnr" in v for v in values) and isinstance(one.get("notes"), dict)


def timing(clock: Clock, seconds: float) -> dict:
    """Where the time went; `scored` counts the images of this start, not those that a killed one had scored."""
    spent = {part: round(spent, 2) for part, spent in clock.seconds.items()}
    device = f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}"
    return dict(zip(TIMING, (round(seconds, 1), spent, clock.images, device), strict=True))


def finished(run: Run) -> bool:
    """True when results.json holds what the config asks for, scored with the weights and photos that are there now."""
    path, results = run.workdir / "results.json", read_results(run.workdir)
    if path.exists() and not results:
        print(f"{shown(path)} is damaged; the evaluation makes it anew", file=sys.stderr)
    done = results.get("evaluation", {})
    now = {"weights": digests(run), "settings": as_json(run.config.evaluation)}
    same = bool(done) and bool(now["weights"]) and all(done.get(key) == value for key, value in now.items())
    return same and same_photos(run, done.get("photos", ""))
