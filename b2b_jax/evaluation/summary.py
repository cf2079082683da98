"""The report: gathers what a run has left in its folder so far and writes report/index.html.

It is renewed at every validation while the run lasts, by the code that writes it at the end.
"""

import json
import math
import platform
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import jax
from tqdm import tqdm

from b2b_jax import __version__, images, weights
from b2b_jax.errors import shown
from b2b_jax.evaluation import progress, report, sheet
from b2b_jax.evaluation.charts import Curve, Scatter
from b2b_jax.evaluation.pictures import middle, part
from b2b_jax.evaluation.report import Example, Report, Table
from b2b_jax.evaluation.rows import ROWS, best
from b2b_jax.files import read_object
from b2b_jax.folders import natural_key
from b2b_jax.stages import SECTIONS, STAGES, camera_figures, left_out, trained_here
from b2b_jax.stages.run import Run
from b2b_jax.training import log

T = TypeVar("T")

OURS = ("blur2blur", "kernel_field", "consistent", "adapted", "adapted_consistent")  # rows that a run is about
# The versions of a picture; the first and the last are those that the slider compares at the start.
LABELS = {name: row.short for name, row in ROWS.items() if name not in OURS}
LABELS |= {"translated": "translated G(y)", "sharp": "truth"}
LABELS |= {name: ROWS[name].short for name in OURS}
METRICS = {  # title and decimals
    "psnr": ("PSNR, dB", 2),
    "ssim": ("SSIM", 3),
    "psnr_y": ("PSNR of luma, dB", 2),
    "ssim_y": ("SSIM of luma", 3),
    "ssim_3d": ("SSIM, 3-D window", 3),
    "ssim_uniform": ("SSIM, uniform window", 3),
    "niqe": ("NIQE", 2),
    "lpips": ("LPIPS", 3),
    "temporal": ("warped difference, grey levels", 2),
}
NOTES = {
    "fixed_filter": "Best fixed filter",
    "niqe": "NIQE",
    "lpips": "LPIPS",
    "temporal": "Warped difference",
    "exact": "Left out of the means",
}
CONVERTER = {
    "input": "camera's photos y",
    "converted": "translated G(y)",
    "known": "photos of the known blur",
}
CURVES = {  # title, label, the keys of metrics.jsonl, logarithmic
    "loss": ("Loss", ("loss",), False),
    "validation": ("Validation PSNR, dB", ("validation_psnr",), False),
    "adversarial": ("Adversarial losses", ("d_fake", "d_real", "g_adversarial"), False),
    "content": ("Content loss", ("g_content",), True),
    "auc": ("Discriminator's AUC, real against generated", ("d_auc", "held_out_auc"), False),
    "nats": ("Nats read of the blur of photos held out", ("nats_read",), False),
    "kernels": ("Kernels' distance from the true ones", ("kernel_distance",), False),
    "known": ("PSNR on the known blur, dB", ("known_psnr",), False),
}
PACKAGES = ("jax", "jaxlib", "flax", "optax", "grain", "orbax-checkpoint", "numpy")
SUBJECTS = {  # the first of these rows that a run has is what its page is about
    "blur2blur": "Blur2Blur",
    "kernel_field": "The kernel field",
    "consistent": "Agreement with the photo",
    "adapted": "The adapted deblurrer",
    "adapted_consistent": "The adapted deblurrer in agreement with the photo",
    "cyclegan": "CycleGAN",
    "dualgan": "DualGAN",
    "paired": "The deblurrer trained on the camera's own pairs",
    "deblurrer": "The deblurrer",
    "blur2blur_pairs": "Blur2Blur trained with pairs",
    "true_kernels": "Blur2Blur towards the true known kernels",
    "fixed_filter": "The best fixed filter, chosen with the truth,",
    "oracle": "The deblurrer on truly known blur",
}
RELOAD = 15  # seconds after which the page of a running run looks for a newer one


def write_report(run: Run) -> None:
    """Writes the page of a run that is done."""
    print(f"Report: {shown(report.write(run.workdir / 'report', gather(run)))}")


def show(run: Run, stage: str) -> None:
    """Renews the page while `stage` runs; "" when none does.

    Never raises: a run is worth more than its report. A full disk stops it at the next checkpoint, which says so.
    """
    try:
        report.write(run.workdir / "report", gather(run, stage))
    except Exception as error:
        disk = isinstance(error, OSError) and error.strerror
        say_once(f"The report is not renewed: {disk or type(error).__name__}: {error.filename if disk else error}")


@cache
def say_once(text: str) -> None:
    """Says on stderr what would be said again at every validation."""
    tqdm.write(shown(text), file=sys.stderr)


def gather(run: Run, stage: str = "") -> Report:
    """The page from results.json, the logs, samples and examples, as far as they are there, while `stage` runs."""
    results = read_object(run.workdir / "results.json")
    sets = whole("results.json", [], lambda: [results, *results["other_sets"]] if results.get("rows") else [])
    scores = whole("results.json", {}, lambda: results if [table(one) for one in sets] else {})
    sets = sets if scores else []
    found = examples(run.workdir / "evaluation" / "examples", [one["dataset"] for one in sets])
    parts = progress.progress(run, stage)
    unfinished = progress.line(parts, stage)
    gained = summary_line(scores) if scores.get("rows") or not unfinished else ""
    steps = trained_here(run).get(stage, 0)
    return Report(
        title=f"Blur2Blur: {run.workdir.name}",
        summary=f"{unfinished} {gained}".strip(),
        headline=headline(scores) or progress.headline(log.read(run.workdir / stage) if steps else [], steps),
        progress=parts if unfinished else [],
        samples=whole("samples/", [], lambda: progress.samples(run, stage)) if stage or not found else [],
        reload=RELOAD if stage else 0,
        written=time.time(),
        facts=whole("results.json or a stage's weights", [], lambda: facts(run, results)),
        tables=whole("results.json", [], lambda: [*map(table, sets), *converter_table(results)]),
        camera=whole("camera/", [], lambda: camera(run)),
        examples=[example for example in found if not example.kind],
        extremes=[example for example in found if example.kind],
        scatters=[gains for one in sets for gains in scatters(run, one["dataset"])],
        curves=whole(
            "a metrics.jsonl",
            [],
            lambda: [x for name in sorted(STAGES, key=lambda name: name != stage) for x in curves(run, name)],
        ),
        times=whole("a summary.json", [], lambda: progress.times(run, results)),
        config_json=(run.workdir / "config.json").read_text(errors="replace"),
    )


def whole(source: str, instead: T, make: Callable[[], T]) -> T:
    """A part of the page; `instead` of it, and a line that says so, where the file that it is made from is damaged."""
    try:
        return make()
    except (LookupError, TypeError, ValueError, AttributeError, OSError, StopIteration) as error:
        tqdm.write(shown(f"The report is without what {source} holds, which is damaged: {error!r}"), file=sys.stderr)
        return instead


def summary_line(results: dict) -> str:
    """The gain in one sentence."""
    if not results.get("rows"):
        return "No scores: nothing has been evaluated, or there is no truth to score against."
    psnr = {row: values["psnr"] for row, values in results["rows"].items()}
    rows = [row for row in OURS if row in psnr] or [subject(results["rows"])]
    over = baseline(results["rows"])
    gains = (
        f"{SUBJECTS[row]} gains "
        + (f"{psnr[row] - psnr[over]:+.2f} dB over the deblurrer alone and " if over == "deblurrer" else "")
        + f"{psnr[row] - psnr['input']:+.2f} dB over the blurry input"
        for row in rows
    )
    method = results.get("method")
    when = "" if method in psnr else " when all systems were scored"
    method = f" b2b_jax.deblur uses {method}, which scored best{when}." if method else ""
    return f"{'. '.join(gains)}, mean of {results['images']} images.{method}"


def subject(scores: Mapping[str, Mapping]) -> str:
    """The row that a run is about: the best of OURS, else its first one."""
    ours = {row: scores[row] for row in OURS if row in scores}
    return best(ours) or next(row for row in SUBJECTS if row in scores)


def baseline(scores: Mapping[str, Mapping]) -> str:
    """The row that its gain is over: the deblurrer alone, or the blurry input where there is no other."""
    return "deblurrer" if "deblurrer" in scores and subject(scores) != "deblurrer" else "input"


def headline(results: dict) -> list[tuple[str, str]]:
    """The figures that stand on top, of the first test set."""
    if not results.get("rows"):
        return []
    row, over = subject(results["rows"]), baseline(results["rows"])
    found, base = results["rows"][row], results["rows"][over]
    return [
        (f"dB over the {ROWS[over].short}", f"{found['psnr'] - base['psnr']:+.2f}"),
        (f"dB PSNR, from {base['psnr']:.2f}", f"{found['psnr']:.2f}"),
        (f"SSIM, from {base['ssim']:.3f}", f"{found['ssim']:.3f}"),
        (f"images of {results['dataset']}", f"{results['images']:,}"),
    ]


def facts(run: Run, results: dict) -> list[tuple[str, str]]:
    """What was trained on what, and with which versions this page is written: its stages may be of earlier ones."""
    data, config = run.config.data, run.config
    own = data.unknown_blur and f"{data.unknown_blur} (blurry), {data.unknown_sharp} (sharp)"
    known, camera = (
        f"generated scenes under {kernel.to_dict()}" if name == "scenes" else name
        for name, kernel in ((data.known, data.scenes.known_kernel), (own or data.unknown, data.scenes.unknown_kernel))
    )
    found = [("Known blur", known), ("Camera", camera), ("Seed", str(config.seed))]
    reasons = {stage: reason for stage in trained_here(run) if (reason := left_out.reason(run, stage))}
    apart = {"blur_extractor", *reasons}
    named = [name for name in SECTIONS if name not in apart and STAGES[name].needed(run)]
    for stage in (name for name in named if name in trained_here(run) or run.weights_path(name).is_file()):
        given = f"; loaded from {config[stage].weights}" if config[stage].weights else ""
        found.append((stage.capitalize(), network(run.weights_path(stage)) + given))
    found += [(stage.capitalize(), f"left out: {reason}") for stage, reason in reasons.items()]
    learnt = read_object(run.workdir / "camera" / "scores.json")
    found += [("Learnt camera", verdict(learnt))] if learnt and "camera" not in reasons else []
    for stage, digest in results.get("evaluation", {}).get("weights", {}).items():
        found.append((f"SHA-256 of {stage}", digest))
    devices = f"{jax.device_count()} × {jax.devices()[0].device_kind} ({platform.machine()})"
    versions = [f"b2b_jax {__version__}", f"Python {platform.python_version()}"]
    versions += [f"{name} {version(name)}" for name in PACKAGES]
    return [*found, ("Page written on", devices), ("Page written with", ", ".join(versions))]


def network(path: Path) -> str:
    """The network that a file of weights holds, as it says itself, with its hyper-parameters."""
    if not path.is_file():
        return "not there yet"
    name, hyper = weights.describe(path)
    return f"{name} ({', '.join(f'{key} {value}' for key, value in hyper.items())})"


def table(one: dict) -> Table:
    """One test set: every row's scores, mean ± standard error, and the gain over the deblurrer alone."""
    shown = [metric for metric in METRICS if any(metric in values for values in one["rows"].values())]
    over, rows = "deblurrer" if "deblurrer" in one["rows"] else "input", []
    base = one["rows"][over]["psnr"]
    for row, values in one["rows"].items():
        gain = f"{values['psnr'] - base:+.2f}"
        gain += f" ± {values['gain_error']:.2f}" if values.get("gain_error") else ""
        rows.append([ROWS[row].label, *(cell(values, metric) for metric in shown), gain])
    notes = [f"{NOTES[key]}: {text}" for key, text in one["notes"].items()]
    note = ". ".join([f"{one['images']} images, mean ± standard error", one["protocol_text"], *notes]) + "."
    columns = ["", *(METRICS[metric][0] for metric in shown), f"gain over the {over}, dB"]
    return Table(one["dataset"], note, columns, rows, list(one["rows"]).index(subject(one["rows"])))


def converter_table(results: dict) -> list[Table]:
    """The converter check, if it was made."""
    judged = results.get("converter", {})
    rows = [[CONVERTER[row], *(f"{v[key]:.1%}" for key in ("acc1", "acc2"))] for row, v in judged.items()]
    note = (
        "Photos that are taken for the known blur, by the translator's discriminator and by a ResNet-18 trained apart."
    )
    columns = ["", "by the discriminator (Acc1)", "by the classifier (Acc2)"]
    return (
        [Table("Does the translator translate?", note, columns, rows, list(judged).index("converted"))] if rows else []
    )


def cell(values: dict, metric: str) -> str:
    """Mean ± standard error of one metric, of one photo without; empty when it could not be computed."""
    digits = METRICS[metric][1]
    error = f" ± {values[f'{metric}_error']:.{digits}f}" if values.get(f"{metric}_error") else ""
    return f"{values[metric]:.{digits}f}{error}" if metric in values else ""


def scatters(run: Run, dataset: str) -> list[Scatter]:
    """Every image's gain over the deblurrer against how blurred it is; nothing without images.csv."""
    lines = sheet.read_sheet(run.workdir / "evaluation" / "images.csv")
    psnr = {row: {name: x for (where, name, of), x in lines if of == row and where == dataset} for row in ROWS}
    # psnr is the first of the numbers, the variance the last; a line of either row may be lost
    points = [
        (x[-1], x[0] - psnr["deblurrer"][name][0], name)
        for name, x in psnr["blur2blur"].items()
        if name in psnr["deblurrer"] and math.isfinite(x[0] - psnr["deblurrer"][name][0])
    ]
    if not points:
        return []
    better = sum(gain > 0 for _, gain, _ in points)
    note = f"{better} of {len(points)} images gain. A low variance means a strong blur, or a plain photo."
    x_label = "variance of the Laplacian of y, grey levels²"
    return [Scatter(f"{dataset}: gain of every image", x_label, "gain over the deblurrer, dB", points, note)]


def camera(run: Run) -> list[Example]:
    """The learnt camera: its kernels, beside the true ones where these are known, and what it makes of sharp photos."""
    folder, found = run.workdir / "camera", read_object(run.workdir / "camera" / "scores.json")
    if not found:
        return []
    pictures = {name: folder / f"{name}.png" for name in ("kernels", "true_kernels")}
    shown = {name.replace("_", " "): images.read(path) for name, path in pictures.items() if path.is_file()}
    _, samples = log.read_samples(folder)
    photos = zip(*samples.values(), strict=True) if samples else []
    made = [Example(f"shot {i}", dict(zip(samples, photo, strict=True))) for i, photo in enumerate(photos, start=1)]
    return [Example(verdict(found), shown, {"kernels": camera_figures.told(found)}), *made] if shown else made


def verdict(found: dict) -> str:
    """Whether the learnt camera is used, and why not."""
    if not found["usable"]:
        return f"not used: {'; '.join(found['reasons'])}"
    noted = "".join(f". Note that {note}" for note in found["notes"])
    if "nats_read" in found:
        return f"{found['shots']} blurs; {found['nats_read']:.1f} nats of the blur of photos held out are read{noted}"
    return f"AUC {found['held_out_auc']:.2f} on photos held out: 0.5 if its photos cannot be told from real ones{noted}"


def examples(folder: Path, datasets: list[str]) -> list[Example]:
    """The saved examples, every version in the table's order, those of `datasets` first; of large photos the middle."""
    found, paths = [], sorted(folder.glob("*/example.json"), key=natural_key)
    order = {
        path: [*(path.parent.name.startswith(f"{name}-") for name in datasets), True].index(True) for path in paths
    }
    for path in sorted(paths, key=order.__getitem__):
        found += whole(str(path.parent), [], lambda path=path: [example(path)])
    return found


def example(path: Path) -> Example:
    """The example that an example.json tells of, with the pictures beside it."""
    record = json.loads(path.read_text())
    labels = [label for label in LABELS if label in record["labels"]]
    pictures = {LABELS[label]: images.read(path.parent / f"{label}.png") for label in labels}
    title = ", ".join(filter(None, [record["title"], part(next(iter(pictures.values())))]))
    captions = {LABELS[label]: str(text) for label, text in record["captions"].items() if label in LABELS}
    cut = {label: middle(picture) for label, picture in pictures.items()}
    return Example(title, cut, captions, str(record["kind"]))


def curves(run: Run, stage: str) -> list[Curve]:
    """The stage's curves, as far as its log has their keys."""
    rows, found = log.read(run.workdir / stage), []
    for label, keys, log_y in CURVES.values():
        series = {key: [(row["step"], row[key]) for row in rows if key in row] for key in keys}
        series = {key: points for key, points in series.items() if points}
        if series:
            found.append(Curve(f"{stage}: {label}", "step", label, series, log_y))
    return found
