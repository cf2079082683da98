"""What a run tells: metrics.jsonl (one row per report), TensorBoard events, sample pictures, W&B if asked."""

import contextlib
import json
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from b2b_jax import images, levels
from b2b_jax.errors import shown
from b2b_jax.files import append_line, read_json, read_object, write_json, write_text

METRICS, IMAGES, CLOCK, WANDB = "metrics.jsonl", "images.jsonl", "clock.json", "wandb.json"
SAMPLES = "samples.json"  # what the columns of the pictures under samples/ show


class Log:
    """Writes the reports of one stage into its folder."""

    def __init__(self, folder: Path, step: int, wandb_project: str = ""):
        """Opens the log to resume after `step`: what an interrupted run left of later steps is dropped."""
        from b2b_jax.training.events import Events  # here: tensorboardX imports PyTorch, if there, which takes seconds

        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        rows = _shorten(folder / METRICS, step)
        _shorten(folder / IMAGES, step)
        for picture in _pictures(folder):
            if int(picture.stem) > step:
                picture.unlink()
        self.productive = _last(rows, "productive")  # seconds of the steps so far, had none been repeated
        self.rate = _last(rows, "images_per_second")
        self.seconds = _last([read_object(folder / CLOCK)], "seconds")  # of all starts before, lost ones too
        self._quiet = False
        self._events = Events(folder, step)
        self._wandb = _start_wandb(folder, step, wandb_project) if wandb_project else None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one row of numbers."""
        row = {"step": step, **{k: float(v) for k, v in values.items()}}
        self._spare(lambda: append_line(self._folder / METRICS, json.dumps(row)))
        self._spare(lambda: write_json(self._folder / CLOCK, {"seconds": values["seconds"]}))
        self._spare(lambda: self._events.scalars(step, values))
        if self._wandb:
            self._spare(lambda: self._wandb.log(dict(values), step=step))

    def samples(self, step: int, versions: Mapping[str, np.ndarray], rows: int) -> None:
        """Saves photos in their versions, (n, h, w, 3) by name, as one picture under samples/ and among the events."""
        picture = grid(list(versions.values()), rows)
        self._spare(lambda: write_json(self._folder / SAMPLES, list(versions)))
        self._spare(lambda: images.write(self._folder / "samples" / f"{step:08d}.png", picture))
        self._spare(lambda: self._events.picture(step, "samples", picture))

    def names(self, step: int, names: Sequence[str]) -> None:
        """Appends the names of a step's photos to images.jsonl."""
        line = json.dumps({"step": step, "names": list(names)})
        self._spare(lambda: append_line(self._folder / IMAGES, line))

    def close(self) -> None:
        """Flushes everything to disk."""
        self._events.close()
        if self._wandb:
            self._spare(self._wandb.finish)

    def _spare(self, write: Callable[[], object]) -> None:
        """Does without what cannot be written, and says so once: training goes on as long as it can be saved."""
        try:
            write()
        except Exception as error:  # of the disk, or whatever W&B and its network raise
            if not self._quiet:
                reason = (isinstance(error, OSError) and error.strerror) or error
                tqdm.write(f"The log of {shown(self._folder)} has gaps from now on: {shown(reason)}", file=sys.stderr)
            self._quiet = True


class NoLog:
    """The log of a process that is not the first: only the names of its own photos, in images.PROCESS.jsonl."""

    productive = rate = seconds = 0.0

    def __init__(self, folder: Path, step: int, process: int):
        """Opens it to resume after `step`."""
        self._images = folder / f"images.{process}.jsonl"
        _shorten(self._images, step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes nothing."""

    def samples(self, step: int, versions: Mapping[str, np.ndarray], rows: int) -> None:
        """Writes nothing."""

    def names(self, step: int, names: Sequence[str]) -> None:
        """Appends the names of this process's part of a step's photos."""
        with contextlib.suppress(OSError):
            self._images.parent.mkdir(parents=True, exist_ok=True)
            append_line(self._images, json.dumps({"step": step, "names": list(names)}))

    def close(self) -> None:
        """Nothing is open."""


def open_log(folder: Path, step: int, wandb_project: str = "") -> Log | NoLog:
    """The log of this process, to resume after `step`."""
    process = jax.process_index()
    return NoLog(folder, step, process) if process else Log(folder, step, wandb_project)


def read(folder: Path) -> list[dict[str, float]]:
    """The rows of a stage's metrics.jsonl; a line cut short by a crash is left out."""
    return _rows(folder / METRICS)


def read_samples(folder: Path) -> tuple[int, dict[str, list[np.ndarray]]]:
    """The newest picture of a stage, cut up again: its step, and by version its photos, uint8 (h, w, 3); 0 and none."""
    pictures, labels = _pictures(folder), read_json(folder / SAMPLES)
    if not pictures or not isinstance(labels, list) or not labels:
        return 0, {}
    columns = np.split(images.read(pictures[-1]), len(labels), axis=1)
    cells = [np.split(column, column.shape[0] // column.shape[1]) for column in columns]  # photos are square
    return int(pictures[-1].stem), dict(zip(map(str, labels), cells, strict=True))


def _pictures(folder: Path) -> list[Path]:
    """The pictures that `Log.samples` wrote, by their steps."""
    found = [path for path in (folder / "samples").glob("*.png") if path.stem.isdecimal()]
    return sorted(found, key=lambda path: int(path.stem))


def grid(columns: Sequence[np.ndarray], rows: int) -> np.ndarray:
    """Versions (n, h, w, 3) side by side, the first `rows` images below one another: uint8 (rows·h, columns·w, 3)."""
    return levels.to_uint8(np.concatenate(np.concatenate([x[:rows] for x in columns], axis=2)))


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of steps; lines that are no such are left out."""
    rows = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _last(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    """The newest number under a key; 0 for none."""
    found = [row[key] for row in rows if isinstance(row.get(key), int | float)]
    return found[-1] if found else 0.0


def _shorten(path: Path, step: int) -> list[dict[str, Any]]:
    """Drops the rows after `step` from the file, if it is there; returns the others."""
    rows = [row for row in _rows(path) if row["step"] <= step]
    if path.exists():
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def _start_wandb(folder: Path, step: int, project: str):
    import wandb  # an optional extra: pip install 'b2b_jax[wandb]'

    # A stage that resumes is one run there, too; one that starts afresh is another, as steps there never go back.
    identity = (step and read_object(folder / WANDB).get("id")) or secrets.token_hex(4)
    write_json(folder / WANDB, {"id": identity})
    return wandb.init(project=project, id=identity, dir=str(folder), name=str(folder), resume="allow")
