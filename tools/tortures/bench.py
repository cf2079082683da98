"""What all tortures share: the folder, the runs in it, and the rows of the table."""

import shutil
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from tools.tortures.runs import Run

STAGES = ("deblurrer", "translator")
BASE = ("loop.log_images=True", "loop.checkpoint_every=5", "loop.log_every=5", "loop.evaluate_every=20")


class Row(NamedTuple):
    """One line of the table."""

    what: str
    wanted: str
    found: str
    good: bool


class Bench:
    """What the tortures share: the folder, how much to do, and a run that nothing disturbs."""

    def __init__(self, folder: Path, short: bool):
        self.folder, self.short = folder, short
        self.steps = 30 if short else 120
        self.reference = self.run("reference", "stages=deblurrer,translator")

    def run(self, name: str, *settings: str, on: Path | None = None) -> Run:
        """A run that was never started; its folder lies in `on`."""
        steps = [f"{stage}.steps={self.steps}" for stage in STAGES]
        return Run((on or self.folder) / name, self.folder, *BASE, *steps, *settings)

    def one(self, name: str, stage: str, *settings: str, on: Path | None = None) -> Run:
        """A run of one stage, which takes the deblurrer of the reference as given."""
        given = f"deblurrer.weights={self.reference.stage('deblurrer') / 'weights.safetensors'}"
        return self.run(name, f"stages={stage}", *([given] if stage == "translator" else []), *settings, on=on)

    def copy(self, name: str) -> Run:
        """A copy of the reference's translator, unfinished: its checkpoints are there, its weights are not."""
        run = self.one(name, "translator")
        shutil.copytree(self.reference.stage("translator"), run.stage("translator"))
        shutil.copy(self.record, run.folder / "run")
        (run.stage("translator") / "weights.safetensors").unlink()
        return run

    @cached_property
    def record(self) -> Path:
        """The config.json of a run as `one` makes it; without its own a folder with a network is refused."""
        run = self.one("recorded", "translator")
        run.complete("stages=report")
        return run.folder / "run" / "config.json"

    def same(self, what: str, run: Run, stage: str = "translator") -> Row:
        """Whether a run ended with the bits of the reference."""
        want, found = self.reference.fingerprint(stage), run.fingerprint(stage)
        return Row(f"{what}: SHA-256 of all arrays and the order of photos", want, found, want == found)


def equal(what: str, wanted: object, found: object) -> Row:
    """A row that is good when the two are equal."""
    return Row(what, str(wanted), str(found), wanted == found)


def says(what: str, run: Run, *words: object) -> Row:
    """A row that is good when one line of the run's last output holds all the words, and none a traceback."""
    lines = [line for line in run.output.splitlines() if all(str(word) in line for word in words)]
    good = bool(lines) and "Traceback" not in run.output
    return Row(what, "one line with " + ", ".join(map(str, words)), lines[0] if good else run.output[-300:], good)
