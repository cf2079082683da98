"""What all tortures share: the folder, the runs in it, and the rows of the table."""

import shutil
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from tools.tortures.runs import Run

STAGES = ("deblurrer", "translator")
TRAINED = (*STAGES, "camera", "adaptation", "kernel_field", "cycle")
BASE = ("loop.log_images=True", "loop.checkpoint_every=5", "loop.log_every=5", "loop.evaluate_every=20")


class Kind(NamedTuple):
    """A training that is tortured."""

    stage: str
    settings: tuple[str, ...] = ()  # that make it small
    given: tuple[str, ...] = ()  # whose networks it takes as given, by their names in KINDS
    config: str = "configs/demo.py:quick"


CAMERA = ("camera.network.size=9", "camera.network.width=8", "camera.discriminator.width=8", "camera.crop=24")
FIELD = {"size": 9, "lags": 4, "width": 16, "window": 32}
CYCLE = ("cycle.generator.ngf=4", "cycle.discriminator.ndf=4", "cycle.crop=32", "cycle.batch=2")
KINDS = {
    "deblurrer": Kind("deblurrer"),
    "translator": Kind("translator", given=("deblurrer",)),
    "camera": Kind("camera", CAMERA),
    "adaptation": Kind("adaptation", given=("deblurrer", "camera")),
    "translator with pairs": Kind("translator", ("translator.supervision=both",), given=("deblurrer", "camera")),
    "kernel_field": Kind(
        "kernel_field",
        (
            *("kernel_field.enabled=True", "kernel_field.batch=4", "kernel_field.lessons=16", "kernel_field.known=50"),
            *(f"kernel_field.network.{key}={value}" for key, value in FIELD.items()),
        ),
        given=("deblurrer", "camera"),
    ),
    "cycle: CycleGAN": Kind(
        "cycle", (*CYCLE, "cycle.generator.n_blocks=1"), config="configs/baselines.py:cyclegan,quick"
    ),
    "cycle: DualGAN": Kind("cycle", CYCLE, config="configs/baselines.py:dualgan,quick"),
}


class Row(NamedTuple):
    """One line of the table. All rows whose `what` begins alike, up to a colon, look at the same disturbances."""

    what: str
    wanted: str
    found: str
    good: bool
    tries: int = 1  # disturbances


class Count(NamedTuple):
    """How many disturbances there were, and how many of them did harm."""

    tries: int
    broken: int


def count(rows: Iterable[Row]) -> Count:
    """Of the rows of one torture; the disturbances that a bad row looks at all count as broken."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.what.rpartition(": ")[0] or row.what, []).append(row)
    tries = {name: max(row.tries for row in group) for name, group in groups.items()}
    return Count(
        sum(tries.values()), sum(tries[name] for name, group in groups.items() if not all(row.good for row in group))
    )


class Bench:
    """What the tortures share: the folder, how much to do, which of KINDS to kill, and runs that nothing disturbs."""

    def __init__(self, folder: Path, short: bool, killed: tuple[str, ...] = tuple(KINDS)):
        self.folder, self.short, self.killed = folder, short, killed
        self.steps = 30 if short else 120
        self.reference = self.run("reference", "stages=deblurrer,translator")
        self._undisturbed = {name: self.reference for name in STAGES}

    def run(self, name: str, *settings: str, on: Path | None = None, config: str = KINDS["deblurrer"].config) -> Run:
        """A run that was never started; its folder lies in `on`."""
        steps = [f"{stage}.steps={self.steps}" for stage in TRAINED]
        return Run((on or self.folder) / name, self.folder, config, *BASE, *steps, *settings)

    def one(self, name: str, kind: str, *settings: str, on: Path | None = None) -> Run:
        """A run of one kind of training, which takes the networks of undisturbed runs as given."""
        stage, own, given, config = KINDS[kind]
        folders = {KINDS[part].stage: self.undisturbed(part).stage(KINDS[part].stage) for part in given}
        weights = [f"{part}.weights={folder / 'weights.safetensors'}" for part, folder in folders.items()]
        return self.run(name, f"stages={stage}", *own, *weights, *settings, on=on, config=config)

    def undisturbed(self, kind: str) -> Run:
        """A finished run of the kind."""
        if kind not in self._undisturbed:
            run = self._undisturbed[kind] = self.one(f"undisturbed-{slug(kind)}", kind)
            if run.complete():
                raise RuntimeError(f"the undisturbed run of {kind} fails: {run.output[-2000:]}")
        return self._undisturbed[kind]

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

    def same(self, what: str, run: Run, kind: str = "translator") -> Row:
        """Whether a run ended with the bits of the undisturbed one."""
        stage = KINDS[kind].stage
        want, found = self.undisturbed(kind).fingerprint(stage), run.fingerprint(stage)
        return Row(f"{what}: SHA-256 of arrays, photos in order and results", want, found, want == found)


def slug(text: str) -> str:
    """A name for a folder."""
    return text.replace(": ", "-").replace(" ", "-")


def equal(what: str, wanted: object, found: object) -> Row:
    """A row that is good when the two are equal."""
    return Row(what, str(wanted), str(found), wanted == found)


def says(what: str, run: Run, *words: object) -> Row:
    """A row that is good when one line of the run's last output holds all the words, and none a traceback."""
    lines = [line for line in run.output.splitlines() if all(str(word) in line for word in words)]
    good = bool(lines) and "Traceback" not in run.output
    return Row(what, "one line with " + ", ".join(map(str, words)), lines[0] if good else run.output[-300:], good)
