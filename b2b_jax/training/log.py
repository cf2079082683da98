"""What a run tells: metrics.jsonl (one row per report), TensorBoard events, sample pictures, W&B if asked."""

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

from b2b_jax import images
from b2b_jax.files import read_json, write_json, write_text

METRICS, IMAGES, CLOCK, WANDB = "metrics.jsonl", "images.jsonl", "clock.json", "wandb.json"
SAMPLES = "samples.json"  # what the columns of the pictures under samples/ show


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
        self._wandb = _start_wandb(folder, step, wandb_project) if wandb_project else None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one row of numbers."""
        _append(self._folder / METRICS, {"step": step, **{k: float(v) for k, v in values.items()}})
        write_json(self._folder / CLOCK, {"seconds": values["seconds"]})
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log(dict(values), step=step)

    def samples(self, step: int, versions: Mapping[str, np.ndarray], rows: int) -> None:
        """Saves photos in their versions, (n, h, w, 3) by name, as one picture under samples/ and among the events."""
        picture = grid(list(versions.values()), rows)
        write_json(self._folder / SAMPLES, list(versions))
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

    def samples(self, step: int, versions: Mapping[str, np.ndarray], rows: int) -> None:
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


def read_samples(folder: Path) -> tuple[int, dict[str, list[np.ndarray]]]:
    """The newest picture of a stage, cut up again: its step, and by version its photos, uint8 (h, w, 3); 0 and none."""
    pictures, labels = sorted((folder / "samples").glob("*.png")), read_json(folder / SAMPLES)
    if not pictures or not labels:
        return 0, {}
    columns = np.split(images.read(pictures[-1]), len(labels), axis=1)
    cells = [np.split(column, column.shape[0] // column.shape[1]) for column in columns]  # photos are square
    return int(pictures[-1].stem), dict(zip(labels, cells, strict=True))


def grid(columns: Sequence[np.ndarray], rows: int) -> np.ndarray:
    """Versions (n, h, w, 3) side by side, the first `rows` images below one another: uint8 (rows·h, columns·w, 3)."""
    return images.to_uint8(np.concatenate(np.concatenate([x[:rows] for x in columns], axis=2)))


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


def _start_wandb(folder: Path, step: int, project: str):
    import wandb  # an optional extra: pip install -e '.[wandb]'

    # A stage that goes on is one run there, too; one that starts afresh is another, as steps there never go back.
    identity = (step and (read_json(folder / WANDB) or {}).get("id")) or secrets.token_hex(4)
    write_json(folder / WANDB, {"id": identity})
    return wandb.init(project=project, id=identity, dir=str(folder), name=str(folder), resume="allow")
