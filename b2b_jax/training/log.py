"""What a run tells: metrics.jsonl (one row per report), TensorBoard events, sample pictures, W&B if asked."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter

from b2b_jax import images


class Log:
    """Writes the reports of one stage into its folder."""

    def __init__(self, folder: Path, step: int, wandb_project: str = ""):
        """Opens the log to go on after `step`: rows of later steps, left by an interrupted run, are dropped."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._path = folder, folder / "metrics.jsonl"
        rows = [row for row in read(folder) if row["step"] <= step]
        self._path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.seconds = rows[-1]["seconds"] if rows else 0.0  # spent before this start
        self._events = SummaryWriter(str(folder), purge_step=step + 1)
        self._wandb = _start_wandb(folder, wandb_project) if wandb_project else None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one row of numbers."""
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **{k: float(v) for k, v in values.items()}}) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log(dict(values), step=step)

    def picture(self, step: int, picture: np.ndarray) -> None:
        """Saves a uint8 picture (h, w, 3) under samples/ and among the events."""
        images.write(self._folder / "samples" / f"{step:08d}.png", picture)
        self._events.add_image("samples", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes everything to disk."""
        self._events.close()
        if self._wandb:
            self._wandb.finish()


def read(folder: Path) -> list[dict[str, float]]:
    """The rows of a stage's metrics.jsonl; a line cut short by a crash is left out."""
    path, rows = folder / "metrics.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _start_wandb(folder: Path, project: str):
    import wandb  # an optional extra: pip install 'b2b_jax[wandb]'

    return wandb.init(project=project, dir=str(folder), name=str(folder), resume="allow")
