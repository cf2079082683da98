"""The camera that the page trains: a run of `configs/camera.py:small` in a process of its own, so that a stop saves."""

import contextlib
import filecmp
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from b2b_jax import commandline, named
from b2b_jax.data import domains, survey
from b2b_jax.errors import UserError, shown
from b2b_jax.files import draft, read_object

PILES = {"unknown_blur": "blurry", "unknown_sharp": "sharp"}  # keys of config.data, and what a person calls them
UPLOADS = "photos"  # folder of the run that keeps what was uploaded
PATIENCE = 120  # seconds that a run may take to save when the page ends
STOPPED = {143, 130, -15}  # exit codes after a signal


class Order(NamedTuple):
    """A camera to train."""

    piles: dict[str, Path]  # folders of photos, by the keys of PILES
    workdir: Path
    settings: tuple[str, ...] = ()  # KEY=VALUE of configs/default.py

    def all_settings(self) -> list[str]:
        """KEY=VALUE of the piles, then of the other settings, which win."""
        return [*(f"data.{key}={folder}" for key, folder in self.piles.items()), *self.settings]

    def command(self) -> list[str]:
        """What a person would type."""
        config = f"{commandline.CONFIGS / 'camera.py'}:small"
        options = [f"--config.{setting}" for setting in self.all_settings()]
        python = [sys.executable, *["-P"] * sys.flags.safe_path, "-m"]  # as the page was started
        return [*python, "b2b_jax.main", "--config", config, "--workdir", str(self.workdir), *options]


def order(folders: Sequence[str], uploads: Sequence[Sequence[str]], workdir: str, settings: str) -> Order:
    """What the page's fields ask for. UserError: a pile is not given, or a setting is no KEY=VALUE.

    Args:
        folders: of the piles in the order of PILES; "" where files are uploaded, or the run knows its photos.
        uploads: the piles' uploaded files, which are kept in the run's folder.
        workdir: the run's folder.
        settings: lines of KEY=VALUE.
    """
    if not workdir.strip():
        raise UserError("Name the work folder")
    work, lines = Path(workdir.strip()).expanduser(), list(filter(None, map(str.strip, settings.splitlines())))
    for line in lines:
        if not re.fullmatch(r"[\w.]+=.*", line):
            raise UserError(f"{line!r} is no KEY=VALUE, such as camera.steps=2000")
    given = zip(PILES, folders, uploads, strict=True)
    return Order({key: _pile(key, folder.strip(), files, work) for key, folder, files in given}, work, tuple(lines))


def _pile(key: str, folder: str, uploads: Sequence[str], workdir: Path) -> Path:
    """A pile's folder: the one that is named, that of uploads, or the one that the run was started with."""
    kept = workdir / UPLOADS / key
    if folder and uploads:
        raise UserError(f"Name a folder of {PILES[key]} photos, or upload them, not both")
    if folder:
        return Path(folder).expanduser()
    for upload in map(Path, uploads):
        kept.mkdir(parents=True, exist_ok=True)
        _keep(upload, kept)
    saved = read_object(workdir / "config.json")
    data = saved.get("data")
    recorded = data.get(key) if isinstance(data, dict) else ""
    if kept.is_dir() or recorded:
        return kept if kept.is_dir() else named.begun(saved, recorded)
    raise UserError(f"Name a folder of {PILES[key]} photos on this computer, or upload some")


def _keep(upload: Path, folder: Path) -> None:
    """Copies a file, under another name where one of its name, but not the same, is there."""
    target, number = folder / upload.name, 1
    while target.exists() and not filecmp.cmp(upload, target, shallow=False):
        number += 1
        target = folder / f"{upload.stem}_{number}{upload.suffix}"
    if not target.exists():
        with draft(target) as part:
            shutil.copyfile(upload, part)


def look(wanted: Order) -> str:
    """The report on the two piles, as the run would have them, with its warnings.

    UserError: a folder is missing or holds no photos, or a setting cannot be.
    """
    config = commandline.configuration("camera", "small", wanted.all_settings())
    piles = domains.open_unknown(config).piles
    if piles is None:
        raise UserError("The settings name photos other than the two folders'; there is nothing to look at")
    report = survey.survey(piles)
    return "\n".join(map(shown, survey.lines(report)))


class Training:
    """The run of the page, one at a time. At the end of the block it is stopped, which saves it.

    `finished` holds the folders of runs that were trained to their end; `starts` counts.
    """

    def __init__(self, log: Path):
        self._log, self._process, self._order = log, None, None
        self._began, self._stopping = 0.0, False
        self.starts = 0
        self.finished: list[Path] = []

    def __enter__(self) -> "Training":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        if self._process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)

    @property
    def running(self) -> bool:
        """True while the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, wanted: Order) -> None:
        """Starts the run, or resumes it. UserError: another one is running."""
        if self.running:
            raise UserError(f"{self._order.workdir} is being trained; stop it first")
        self._order, self._began, self._stopping, self.starts = wanted, time.time(), False, self.starts + 1
        with open(self._log, "wb") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
            # Its own session: a Ctrl-C in the page's terminal reaches it as a stop, once.
            self._process = subprocess.Popen(wanted.command(), start_new_session=True, **streams)

    def stop(self) -> None:
        """Asks the run to save and to end."""
        if self.running:
            self._stopping = True
            self._process.terminate()

    def said(self) -> str:
        """How the run is, in a sentence."""
        if self._process is None:
            return "Nothing is being trained."
        folder, code = shown(self._order.workdir), self._process.poll()
        if code is None:
            return f"Saving {folder}, then stopping." if self._stopping else f"Training {folder}; its report is below."
        if code in STOPPED:
            return f"Stopped and saved. Train with the work folder {folder} again, and it resumes."
        if code:
            return self._last_line()
        if self._order.workdir not in self.finished:
            self.finished.append(self._order.workdir)
        return f"Done. {folder} can now be chosen where photos are deblurred."

    def _last_line(self) -> str:
        lines = re.split(r"[\r\n]+", self._log.read_text(errors="replace"))
        return shown(next((line.strip() for line in reversed(lines) if line.strip()), "It ended without a word."))

    def report(self) -> Path | None:
        """The run's live report; None before there is one of this start."""
        if self._order is None:
            return None
        path = self._order.workdir / "report/index.html"
        written = path.stat().st_mtime if path.is_file() else 0
        return path if written and not (self.running and written < self._began) else None
