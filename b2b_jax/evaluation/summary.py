"""The report stage: gathers what a run left in its folder and writes report/index.html."""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import jax

from b2b_jax import __version__, images
from b2b_jax.evaluation import report
from b2b_jax.evaluation.report import Curve, Example, Report, Table
from b2b_jax.files import read_json
from b2b_jax.training import log
from b2b_jax.training.run import Run

ROWS = {
    "input": "blurry input y",
    "deblurrer": "deblurrer alone D_K(y)",
    "fixed_filter": "best fixed filter, chosen with the truth",
    "blur2blur": "Blur2Blur D_K(G(y))",
    "true_kernels": "Blur2Blur towards the true known kernels",
    "paired": "deblurrer trained on the camera's own pairs (upper bound)",
    "oracle": "deblurrer on truly known blur (oracle)",
}
# The first and the last are those that the slider compares.
ORDER = ("input", "translated", "deblurrer", "fixed_filter", "true_kernels", "paired", "oracle", "sharp", "blur2blur")
STAGES = ("deblurrer", "blur_extractor", "translator", "paired", "true_kernels")
CURVES = {  # title, label, the keys of metrics.jsonl, logarithmic
    "loss": ("Loss", ("loss",), False),
    "validation": ("Validation PSNR, dB", ("validation_psnr",), False),
    "adversarial": ("Adversarial losses", ("d_fake", "d_real", "g_adversarial"), False),
    "content": ("Content loss", ("g_content",), True),
    "auc": ("Discriminator's AUC, known against translated", ("d_auc",), False),
}


def write_report(run: Run) -> None:
    """Writes the page from results.json, the stages' logs and the examples, as far as they are there."""
    results = read_json(run.workdir / "results.json") or {}
    sets = [results, *results["other_sets"]] if results.get("rows") else []
    page = Report(
        title=f"Blur2Blur: {run.workdir.name}",
        summary=summary_line(results),
        facts=facts(run, results),
        tables=[table(one, results) for one in sets],
        examples=examples(run.workdir / "evaluation" / "examples"),
        curves=[curve for stage in STAGES for curve in curves(run, stage)],
        config_json=(run.workdir / "config.json").read_text(),
    )
    print(f"Report: {report.write(run.workdir / 'report', page)}")


def summary_line(results: dict) -> str:
    """The gain in one sentence."""
    if not results.get("rows"):
        return "No scores: nothing has been evaluated, or there is no truth to score against."
    psnr = {row: values["psnr"] for row, values in results["rows"].items()}
    return (
        f"Blur2Blur gains {psnr['blur2blur'] - psnr['deblurrer']:+.2f} dB over the deblurrer alone and "
        f"{psnr['blur2blur'] - psnr['input']:+.2f} dB over the blurry input, mean of {results['images']} images."
    )


def facts(run: Run, results: dict) -> list[tuple[str, str]]:
    """What was trained on what, how long, with which versions."""
    data = run.config.data
    camera = data.unknown_blur or data.unknown
    found = [("Known blur", data.known), ("Camera", camera), ("Seed", str(run.config.seed))]
    for stage, values in results.get("train", {}).items():
        if values:
            rate = f"{values['steps']:,} steps, {values['seconds']:.0f} s, {values['images_per_second']:.1f} images/s"
            found.append((stage.capitalize(), rate))
    devices = f"{jax.device_count()} × {jax.devices()[0].device_kind} ({platform.machine()})"
    versions = ", ".join([f"b2b_jax {__version__}", *(f"{name} {version(name)}" for name in ("jax", "flax"))])
    return [*found, ("Device", devices), ("Versions", versions)]


def table(one: dict, results: dict) -> Table:
    """One test set: PSNR and SSIM of every row, mean ± standard error, and the gain over the deblurrer alone."""
    base, rows = one["rows"]["deblurrer"]["psnr"], []
    for row, values in one["rows"].items():
        psnr, ssim = (f"{values[m]:.{d}f} ± {values[f'{m}_error']:.{d}f}" for m, d in (("psnr", 2), ("ssim", 3)))
        rows.append([ROWS[row], psnr, ssim, f"{values['psnr'] - base:+.2f}"])
    note = f"{one['images']} images. {results['protocol']}."
    if "fixed_filter" in one["notes"]:
        note += f" Best fixed filter: {one['notes']['fixed_filter']}."
    columns = ["", "PSNR, dB", "SSIM", "gain over the deblurrer, dB"]
    return Table(one["dataset"], note, columns, rows, list(one["rows"]).index("blur2blur"))


def examples(folder: Path) -> list[Example]:
    """The saved examples, every version in the table's order."""
    found = []
    for path in sorted(folder.glob("*/example.json")):
        record = json.loads(path.read_text())
        labels = [label for label in ORDER if label in record["labels"]]
        pictures = {label: images.read(path.parent / f"{label}.png") for label in labels}
        found.append(Example(record["title"], pictures, record["captions"]))
    return found


def curves(run: Run, stage: str) -> list[Curve]:
    """The stage's curves, as far as its log has their keys."""
    rows, found = log.read(run.workdir / stage), []
    for label, keys, log_y in CURVES.values():
        series = {key: [(row["step"], row[key]) for row in rows if key in row] for key in keys}
        series = {key: points for key, points in series.items() if points}
        if series:
            found.append(Curve(f"{stage}: {label}", "step", label, series, log_y))
    return found
