"""A disk that is full from any one write of a whole run on: one line, no hang, and with room again the same results."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from b2b_jax.networks import WEIGHTS
from b2b_jax.training import checkpoint
from tools.tortures.bench import CAMERA, CYCLE, KINDS, Bench, Row
from tools.tortures.filling import BALLAST
from tools.tortures.runs import RESULTS, ROOT, Run, mounted

PARTS = ("deblurrer", "camera", "adaptation", "translator", "kernel_field", "cycle", "evaluation", "report")
SETTINGS = (
    *(f"{stage}.steps=8" for stage in PARTS[:6]),
    "camera.network.start=1.5",  # so that the camera is of use and is trained with
    *("loop.checkpoint_every=4", "loop.log_every=4", "loop.evaluate_every=8"),
    *("data.scenes.test=2", "evaluation.examples=1", "evaluation.extremes=0", "evaluation.save_images=True"),
    *("evaluation.fixed_filter=False", "evaluation.oracle=False"),
    *(*KINDS["kernel_field"].settings, *CAMERA, *CYCLE, "cycle.enabled=True", "cycle.generator.n_blocks=1"),
)
PATIENCE = 300  # seconds, after which a start counts as hanging
ENDS = ("Could not write", "Could not save")  # what a run says that ends for want of room
TIMES = ("evaluation", "train")  # parts of results.json that tell how long things took


class Write(NamedTuple):
    """A write of a run, as `filling` lists it."""

    event: str
    pattern: str
    number: int  # of that event and pattern
    what: str  # the file; equal for all stages that write theirs by the same code, but for their weights


class Starts:
    """Starts of one run on a disk of its own, by the process of `filling`; a context."""

    def __init__(self, run: Run):
        self.run, self.disk, self.output = run, run.folder / "run", ""
        run.folder.mkdir(parents=True, exist_ok=True)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [sys.executable, "-m", "tools.tortures.filling"]
        self._process = subprocess.Popen(command, env=run.environment(), cwd=ROOT, **pipes)

    def __enter__(self) -> "Starts":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()

    def __call__(self, part: str, at: tuple | None = None) -> int | None:
        """Starts one part, with the disk full from the write `at` on; the exit code, None when it hung."""
        task = {"disk": str(self.disk), "arguments": self.run.arguments(f"stages={part}"), "at": at}
        files = {name: str(self.run.folder / name) for name in ("output", "list")}
        Path(files["list"]).unlink(missing_ok=True)
        print(json.dumps({**task, **files, "patience": PATIENCE}), file=self._process.stdin, flush=True)
        code = json.loads(self._process.stdout.readline())
        self.output = Path(files["output"]).read_text(errors="replace")
        return code

    def writes(self, part: str) -> list[Write]:
        """Which files the last start wrote, in their order; of those that the same code writes the first."""
        lines = [json.loads(line) for line in (self.run.folder / "list").read_text().splitlines()]
        becomes = {source: target for event, _, _, target, source in lines if event == "os.rename"}
        found: dict[str, Write] = {}
        for event, pattern, number, place, _ in lines:
            if event == "open":  # a folder made, or a file renamed, on a full disk is the write after it
                path = becomes.get(place, place)
                name = re.sub(r"\d+", "N", re.sub(r"(images|examples)/.*\.png", r"\1/*.png", path))
                own = path == f"{part}/{WEIGHTS}"
                what = name if own else name.replace(part, "STAGE")
                found.setdefault(what, Write(event, pattern, number, what))
        return list(found.values())


def torture_writes(bench: Bench) -> Iterator[Row]:
    """The disk fills at every write of a run of all stages; of writes that several stages share, at the first's.

    As root alone, who may mount a disk of this size.
    """
    if os.geteuid():
        return
    run, seen = bench.run("writes", *SETTINGS), set()
    before = bench.folder / "before"
    before.mkdir(parents=True)
    with mounted(run.folder / "run", "64m"), Starts(run) as start:
        for part in PARTS[: 1 if bench.short else None]:
            if start(part):
                raise RuntimeError(f"{part} fails undisturbed: {start.output[-2000:]}")
            writes, wanted = start.writes(part), results(start.disk, part)
            after = copy(start.disk, bench.folder / f"after-{part}")
            for write in [x for x in writes if x.what not in seen][:: 5 if bench.short else 1]:
                copy(before, start.disk)
                found, good = outcome(start, part, write, wanted)
                yield Row(f"{part}, {write.what}", "0 or 1, one line; then 0, the same", found, good)
            seen |= {write.what for write in writes}
            before = after
            copy(before, start.disk)


def outcome(start: Starts, part: str, write: Write, wanted: str) -> tuple[str, bool]:
    """What a full disk from that write on does, and a second start with room again; whether both are right."""
    code, ballast = start(part, write[:3]), start.disk / BALLAST
    lines = re.split(r"[\r\n]+", start.output)
    ends = [line for line in lines if any(word in line for word in ENDS)]
    noise = re.findall(r"Traceback|\w*Error\b|\w*Exception\b|\w*Warning\b", start.output)
    reached = ballast.exists()
    ballast.unlink(missing_ok=True)
    good = reached and code in (0, 1) and len(ends) == code and not noise
    again = start(part)
    same = again == 0 and results(start.disk, part) == wanted
    told = [*ends[-1:], *noise[:1], *([] if reached else ["never reached"])]
    return f"{', '.join([str(code), *told])}; {again}, {'the same' if same else 'other results'}", good and same


def results(disk: Path, part: str) -> str:
    """SHA-256 of what a part leaves, but for times: arrays, scores, pictures; of a report only that it is whole."""
    if part == "report":
        return str((disk / "report" / "index.html").read_text().rstrip().endswith("</html>"))
    paths = [path for pattern in RESULTS for path in sorted((disk / part).rglob(pattern))]
    if part == "evaluation":
        paths = sorted(path for path in (disk / part).rglob("*") if path.suffix in (".png", ".csv"))
        found = json.loads((disk / "results.json").read_text())
        told = {key: value for key, value in found.items() if key not in TIMES}
    else:
        step = max(checkpoint.steps(disk / part / "checkpoints"), default=0)
        path = disk / part / "checkpoints" / str(step) / "hashes" / "metadata"
        told = json.loads(path.read_text()) if path.exists() else None
    digests = [(str(path.relative_to(disk)), checkpoint.digest(path)) for path in paths]
    return hashlib.sha256(json.dumps([told, digests], sort_keys=True).encode()).hexdigest()


def copy(source: Path, target: Path) -> Path:
    """Makes the folder `target` hold what `source` does, and nothing else; it may be where a disk is mounted."""
    target.mkdir(exist_ok=True)
    for path in os.scandir(target):
        shutil.rmtree(path) if path.is_dir() else os.unlink(path)
    shutil.copytree(source, target, dirs_exist_ok=True)
    return target
