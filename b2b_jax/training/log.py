"""What a run tells: metrics.jsonl (one row per report), TensorBoard events, sample pictures, W&B if asked."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

from b2b_jax import images
from b2b_jax.files import read_json, write_json, write_text

METRICS, IMAGES, CLOCK = "metrics.jsonl", "images.jsonl", "clock.json"


class Log:
    """Writes the reports of one stage into its folder."""

    def __init__(self, folder: Path, step: int, wandb_project: str = ""):
        """Opens the log to go on after `step`: rows of later steps, left by an interrupted run, are dropped."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        rows = _shorten(folder / METRICS, step)
        _shorten(folder / IMAGES, step)
        self.productive = rows[-1]["productive"] if rows else 0.0  # seconds of the steps so far, had none been repeated
        self.rate = next((row["images_per_second"] for row in rows[::-1] if "images_per_second" in row), 0.0)
        self.seconds = (read_json(folder / CLOCK) or {}).get("seconds", 0.0)  # of all starts before, lost ones too
        self._events = SummaryWriter(str(folder), purge_step=step + 1)
        self._wandb = _start_wandb(folder, wandb_project) if wandb_project else None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one row of numbers."""
        _append(self._folder / METRICS, {"step": step, **{k: float(v) for k, v in values.items()}})
        write_json(self._folder / CLOCK, {"seconds": values["seconds"]})
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log(dict(values), step=step)

    def picture(self, step: int, picture: np.ndarray) -> None:
        """Saves a uint8 picture (h, w, 3) under samples/ and among the events."""
        images.write(self._folder / "samples" / f"{step:08d}.png", picture)
        self._events.add_image("samples", picture, step, dataformats="HWC")

    def names(self, step: int, names: Sequence[str]) -> None:
        """Appends the names of a step's photos to images.jsonl."""
        _append(self._folder / IMAGES, {"step": step, "names": list(names)})

    def close(self) -> None:
        """Flushes everything to disk."""
        self._events.close()
        if self._wandb:
            self._wandb.finish()


class NoLog:
    """The log of a process that is not the first: only the names of its own photos, in images.PROCESS.jsonl."""

    productive = rate = seconds = 0.0

    def __init__(self, folder: Path, step: int, process: int):
        """Opens it to go on after `step`."""
        self._images = folder / f"images.{process}.jsonl"
        _shorten(self._images, step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes nothing."""

    def picture(self, step: int, picture: np.ndarray) -> None:
        """Writes nothing."""

    def names(self, step: int, names: Sequence[str]) -> None:
        """Appends the names of this process's part of a step's photos."""
        self._images.parent.mkdir(parents=True, exist_ok=True)
        _append(self._images, {"step": step, "names": list(names)})

    def close(self) -> None:
        """Nothing is open."""


def read(folder: Path) -> list[dict[str, float]]:
    """The rows of a stage's metrics.jsonl; a line cut short by a crash is left out."""
    return _rows(folder / METRICS)


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _shorten(path: Path, step: int) -> list[dict[str, Any]]:
    """Drops the rows after `step` from the file, if it is there; returns the others."""
    rows = [row for row in _rows(path) if row["step"] <= step]
    if path.exists():
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def _append(path: Path, row: Mapping[str, Any]) -> None:
    try:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _start_wandb(folder: Path, project: str):
    import wandb  # an optional extra: pip install 'b2b_jax[wandb]'

    return wandb.init(project=project, dir=str(folder), name=str(folder), resume="allow")
