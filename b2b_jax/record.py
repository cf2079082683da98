"""What a workdir keeps of its run, so that nothing else is ever mixed into it."""

import json
from pathlib import Path

from ml_collections import ConfigDict

from b2b_jax.data import domains, survey
from b2b_jax.errors import UserError
from b2b_jax.files import read_json, write_json
from b2b_jax.stages.run import Run

FIXED = (
    "seed",
    "data",
    "known_blur",
    "deblurrer",
    "blur_extractor",
    "translator",
)  # sections that may not change within a folder,
MOVABLE = {  # … but for these
    "data.root",
    "data.known_path",
    "data.unknown_path",
    "data.prepared",
    "data.prepare",
    "data.threads",
    "data.prefetch",
}


def refuse_changes(run: Run) -> None:
    """UserError when the folder holds a run of other data, networks or training."""
    saved = read_json(run.workdir / "config.json")
    if saved:
        old, new = ({key: config.get(key) for key in FIXED} for config in (saved, as_json(run.config)))
        changes = "; ".join(line for line in differences("", old, new) if line.split(":")[0] not in MOVABLE)
        if changes:
            raise UserError(f"{run.workdir} holds a run of another configuration ({changes}); choose another --workdir")


def write(run: Run) -> None:
    """Writes config.json and what is known of the photos: split.json, data_report.json and bad_photos.json."""
    write_json(run.workdir / "config.json", as_json(run.config))
    for side in ("known", "unknown"):
        if side in vars(run):
            domains.keep_bad_photos(getattr(run, side), run.workdir / "bad_photos.json")
    if "unknown" in vars(run):
        write_camera(run.unknown, run.workdir)


def write_camera(unknown: domains.Unknown, workdir: Path) -> None:
    """Writes split.json when the camera's photos were split here; reports once on folders of one's own."""
    if unknown.split:
        write_json(workdir / "split.json", unknown.split)
    if unknown.piles and not (workdir / "data_report.json").exists():
        report = survey.survey(unknown.piles)
        print("\n".join(survey.lines(report)))
        write_json(workdir / "data_report.json", report)


def as_json(config: ConfigDict) -> dict:
    """The configuration as JSON gives it back: tuples are lists."""
    return json.loads(config.to_json(sort_keys=True))


def differences(key: str, old: object, new: object) -> list[str]:
    """Lists what differs between two configurations, "key: old → new"."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [line for k in keys for line in differences(f"{key}.{k}".strip("."), old.get(k), new.get(k))]
    return [] if old == new else [f"{key}: {old} → {new}"]
