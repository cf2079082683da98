"""How far a run has come: the steps of the stages that it trains, and the time that is left."""

import time
from collections.abc import Mapping, Sequence

from b2b_jax.evaluation.report import Bar, Example, Progress, Table
from b2b_jax.files import read_object
from b2b_jax.networks import WEIGHTS
from b2b_jax.stages import STAGES, left_out, trained_here
from b2b_jax.stages.run import Run
from b2b_jax.training import log

Rows = Sequence[Mapping[str, float]]  # of a stage's metrics.jsonl
PACE = 20  # of these rows, the last ones, by which the time left is estimated


def progress(run: Run, running: str) -> list[Progress]:
    """Every stage that this run trains, the one that is `running` with its pace."""
    return [_stage(run, stage, steps, running) for stage, steps in trained_here(run).items()]


def _stage(run: Run, stage: str, steps: int, running: str) -> Progress:
    reason = "" if stage == running else left_out.reason(run, stage)
    if reason:
        return Progress(stage, 0, 0, f"left out: {reason}")
    rows = log.read(run.workdir / stage)
    done = steps if (run.workdir / stage / WEIGHTS).is_file() else int(rows[-1]["step"]) if rows else 0
    text = f"{done:,} of {steps:,} steps" if steps else "no steps to train"
    if stage == running:
        left = seconds_left(rows, steps)
        text += "".join(f", {x}" for x in (rate(rows), left and f"about {duration(left)} left") if x)
    return Progress(stage, done, steps, text)


def seconds_left(rows: Rows, steps: int) -> float:
    """At the pace of the last rows, validations and saves included; 0 when nothing is left or nothing is known."""
    first, last = (rows[-PACE:][0], rows[-1]) if rows else ({"step": 0}, {"step": 0})
    passed = last["step"] - first["step"]
    return (steps - last["step"]) * (last["seconds"] - first["seconds"]) / passed if passed else 0.0


def rate(rows: Rows) -> str:
    """The last known images per second; empty when there is none."""
    rates = [row["images_per_second"] for row in rows if row.get("images_per_second")]
    return f"{rates[-1]:.1f} images/s" if rates else ""


def line(parts: Sequence[Progress], running: str) -> str:
    """How far the run is, in a sentence; empty when all is done and nothing runs."""
    at = time.strftime("%d %b %Y, %H:%M:%S")
    now = next((part for part in parts if part.name == running), None)
    if now:
        return f"The stage {running} is running: {now.text}. Written {at}."
    if running:
        return f"The stage {running} is running. Written {at}."
    todo = [f"{part.name} {part.text}" for part in parts if part.done < part.steps]
    return f"Not running, and not finished: {'; '.join(todo)}. Written {at}." if todo else ""


def headline(rows: Rows, steps: int) -> list[tuple[str, str]]:
    """The figures on top of a page without results: those of the stage that runs."""
    found = [(f"of {steps:,} steps", f"{int(rows[-1]['step']):,}")] if rows else []
    scores = [row["validation_psnr"] for row in rows if "validation_psnr" in row]
    if scores:
        found += [("dB validation PSNR", f"{scores[-1]:.2f}"), ("dB, the best so far", f"{max(scores):.2f}")]
    left = seconds_left(rows, steps)
    return found + ([("left in this stage, about", duration(left))] if left else [])


def samples(run: Run, running: str) -> list[Example]:
    """The photos of the newest validation, of the stage that runs or else of the last one that has some."""
    for stage in [running, *reversed(trained_here(run))]:
        step, versions = log.read_samples(run.workdir / stage) if stage else (0, {})
        if versions:
            labels = list(versions)
            if labels[-1] == "truth":  # the slider starts with the first and the last
                labels = [*labels[:-2], labels[-1], labels[-2]]
            photos = zip(*(versions[label] for label in labels), strict=True)
            kind = f"{stage}, step {step:,}"
            return [
                Example(f"photo {i}", dict(zip(labels, photo, strict=True)), kind=kind)
                for i, photo in enumerate(photos, start=1)
            ]
    return []


def times(run: Run, results: dict) -> list[Table | Bar]:
    """Seconds and images per second of every finished stage, and where the evaluation's time went."""
    rows = []
    for stage in STAGES:
        done = read_object(run.workdir / stage / "summary.json")
        if done:
            shown = f"{done['images_per_second']:.1f}"
            rows.append([stage, f"{done['steps']:,} steps", duration(done["seconds"]), shown])
    spent = results.get("evaluation", {})
    if spent.get("scored"):
        shown = f"{spent['scored'] / spent['seconds']:.3g}"
        rows.append(["evaluation", f"{spent['scored']:,} images, every row", duration(spent["seconds"]), shown])
    found = [Table("Stages", "", ["", "work", "time", "images/s"], rows)] if rows else []
    return found + ([Bar("Where the evaluation's time went", "s", spent["timing"])] if spent.get("scored") else [])


def duration(seconds: float) -> str:
    """51 s, 12 min 5 s, 3 h 20 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
