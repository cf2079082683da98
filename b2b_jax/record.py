"""What a workdir keeps of its run, so that nothing else is ever mixed into it."""

from pathlib import Path

from b2b_jax import settings
from b2b_jax.data import domains, survey
from b2b_jax.errors import UserError
from b2b_jax.files import read_json, write_json
from b2b_jax.stages import SECTIONS
from b2b_jax.stages.run import Run


def refuse_changes(run: Run) -> None:
    """UserError when the folder holds a run of other data, networks, precision or training."""
    saved = read_json(run.workdir / "config.json")
    if not saved:
        return
    now = settings.resolved(run.config)
    if saved.get("compute_dtype") == "auto":  # older versions did not write which it was
        now["compute_dtype"] = "auto"
    changes = "; ".join(settings.differences(*(settings.identity(config, SECTIONS) for config in (saved, now))))
    if changes:
        raise UserError(f"{run.workdir} holds a run of another configuration ({changes}); choose another --workdir")


def write(run: Run, sides: set[str]) -> None:
    """Writes config.json and what is known of the photos of `sides`: split.json, data_report.json, bad_photos.json."""
    write_json(run.workdir / "config.json", settings.resolved(run.config))
    for side in sides:
        domains.keep_bad_photos(getattr(run, side), run.workdir / "bad_photos.json")
    if "unknown" in sides:
        write_camera(run.unknown, run.workdir)


def write_camera(unknown: domains.Unknown, workdir: Path) -> None:
    """Writes split.json when the camera's photos were split here; reports once on folders of one's own."""
    if unknown.split:
        write_json(workdir / "split.json", unknown.split)
    if unknown.piles and not (workdir / "data_report.json").exists():
        report = survey.survey(unknown.piles)
        print("\n".join(survey.lines(report)))
        write_json(workdir / "data_report.json", report)
