"""What a workdir keeps of its run, so that nothing else is ever mixed into it."""

import os
from pathlib import Path

from b2b_jax import settings
from b2b_jax.data import domains, survey
from b2b_jax.errors import UserError, shown
from b2b_jax.files import LOCK, read_object, write_json
from b2b_jax.named import STARTED_IN
from b2b_jax.networks import MADE, WEIGHTS
from b2b_jax.stages import SECTIONS, STAGES, left_out
from b2b_jax.stages.run import Run

# What the parts of a workdir are, besides the folders of the stages.
FILES = ("config.json", "results.json", "split.json", "data_report.json", "bad_photos.json", MADE, LOCK)
FILES += ("report/index.html", "evaluation/inputs.json", "evaluation/images.csv")
STAGE_FILES = (WEIGHTS, "metrics.jsonl", "images.jsonl", "clock.json", "summary.json", "samples.json", "wandb.json")
STAGE_FILES += ("scores.json", left_out.FILE)
STAGE_FOLDERS = ("", "checkpoints", "samples")
FOLDERS = ("report", "evaluation", "evaluation/examples", "evaluation/images")
PILES = ("unknown_blur", "unknown_sharp")  # keys of `data`, of photos of one's own


def checked(workdir: Path) -> Path:
    """The folder of a run, new or not; UserError for another thing, or one that holds a folder where a file belongs."""
    files = [*FILES, *(f"{stage}/{name}" for stage in STAGES for name in STAGE_FILES)]
    folders = ["", *FOLDERS, *(f"{stage}/{name}" for stage in STAGES for name in STAGE_FOLDERS)]
    for names, right, wanted in ((folders, Path.is_dir, "folder"), (files, Path.is_file, "file")):
        for path in (workdir / name for name in names):
            if os.path.lexists(path) and not right(path):
                found = "a broken link" if not path.exists() else "a folder" if path.is_dir() else f"no {wanted}"
                raise UserError(f"{path} is {found}, wanted a {wanted}; move it away, or choose another --workdir")
    return workdir


def refuse_changes(run: Run) -> None:
    """UserError when the folder holds a run of other data, networks, precision or training, or of what nobody knows."""
    saved = read_config(run.workdir)
    if not saved:
        return
    now = settings.resolved(run.config)
    old, new = identities(saved, now)
    if any((run.workdir / "converter").glob("*")):
        old, new = old | classifier(saved), new | classifier(now)
    for key in moved(run, old["data"], new["data"]):
        old["data"][key] = new["data"][key]
    lacking = settings.lacking(old, new)
    changes = [line for line in settings.differences(old, new) if line.split(":")[0] not in lacking]
    if changes:
        changes = "; ".join(changes)
        raise UserError(f"{run.workdir} holds a run of another configuration ({changes}); choose another --workdir")
    if lacking:
        raise UserError(
            f"{run.workdir} holds a run of an older version, which did not have {', '.join(lacking)}; "
            "finish it with that version, or choose another --workdir"
        )


def moved(run: Run, old: dict, new: dict) -> list[str]:
    """The piles of one's own that now lie elsewhere: nothing is at the old place, and the photos are as reported.

    UserError: there are no photos where they should lie now.
    """
    gone = [key for key in PILES if old.get(key) and old[key] != new[key] and not os.path.lexists(old[key])]
    before = read_object(run.workdir / "data_report.json")
    if not gone or not all(isinstance(before.get(key), dict) for key in gone):
        return []
    piles = run.unknown.piles or {}
    return [key for key in gone if key in piles and before[key].get("digest") == survey.digest(piles[key])]


def identities(saved: dict, now: dict) -> tuple[dict, dict]:
    """What may not change, of the recorded configuration and of the present one, with absolute paths."""
    if saved.get("compute_dtype") == "auto":  # older versions did not write which it was
        now = now | {"compute_dtype": "auto"}
    # A network whose section is missing did not exist then, and none of its kind lies in the folder.
    sections = [name for name in SECTIONS if name in saved]
    here = now[STARTED_IN]
    began = str(saved.get(STARTED_IN, here))  # older versions did not write it
    old, new = (settings.identity(config, sections) for config in (saved, now))
    return settings.placed(old, [began, here]), settings.placed(new, [here])


def classifier(config: dict) -> dict:
    """What the converter check's classifier is trained with, which has no section of its own."""
    evaluation = config.get("evaluation")
    section = evaluation.get("converter") if isinstance(evaluation, dict) else None
    kept = {k: v for k, v in section.items() if k not in ("enabled", "images")} if isinstance(section, dict) else {}
    return {"evaluation": {"converter": kept}}


def read_config(workdir: Path) -> dict:
    """The configuration of the run in the folder; empty for none. UserError when networks are there, but not theirs."""
    path, saved = workdir / "config.json", read_object(workdir / "config.json")
    trained = [name for name in STAGES if (workdir / name).is_dir() and any((workdir / name).iterdir())]
    if not path.exists() and not trained:
        return {}
    sections = {STAGES[name].section for name in trained} - {""}
    known = isinstance(saved.get("data"), dict) and any(isinstance(saved.get(name), dict) for name in SECTIONS)
    lost = sorted(name for name in sections if not isinstance(saved.get(name), dict))
    if known and not lost:
        return saved
    state = "is damaged" if path.exists() else "is missing"
    state += f", without the section {lost[0]}" if known else ""
    raise UserError(
        f"{path} {state}: nobody can tell which configuration the folder was made with; put back a copy of the file, "
        "or choose another --workdir"
    )


def write(run: Run, sides: set[str]) -> None:
    """Writes config.json and what is known of the photos of `sides`: split.json, data_report.json, bad_photos.json."""
    write_json(run.workdir / "config.json", settings.resolved(run.config))
    for side in sides:
        domains.keep_bad_photos(getattr(run, side), run.workdir / "bad_photos.json")
    if "unknown" in sides:
        write_camera(run.unknown, run.workdir)


def write_camera(unknown: domains.Unknown, workdir: Path) -> None:
    """Writes split.json when the camera's photos were split here; reports on one's own once, and when they change."""
    if unknown.split:
        write_json(workdir / "split.json", unknown.split)
    if not unknown.piles:
        return
    before = read_object(workdir / "data_report.json")
    changed = survey.changes(before, unknown.piles)
    if changed or not before:
        report = survey.survey(unknown.piles)
        print("\n".join(map(shown, [*changed, *survey.lines(report)])))
        write_json(workdir / "data_report.json", report)
