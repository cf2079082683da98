"""The results of an evaluation as PNG files, under names that any disk takes, and what is shown of them."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from b2b_jax import images, levels

LONGEST_NAME = 200  # bytes; file systems take 255, with the suffix and the mark of a draft
WINDOW = 720  # pixels: the most that is shown of a photo's height and width, around its centre


def save(folder: Path, names: Sequence[str], results: Mapping[str, jax.Array], root: str, threads: int) -> None:
    """Writes the results as PNG: folder/<row>/<the photo's name below `root`>.png."""
    with ThreadPoolExecutor(threads) as pool:
        jobs = []
        for row, pictures in results.items():
            paths = [folder / row / below(name, root) for name in names]
            paths = [path if path.suffix == ".png" else path.with_name(f"{path.name}.png") for path in paths]
            jobs += [
                pool.submit(images.write, *job)
                for job in zip(paths, levels.to_uint8(pictures)[: len(names)], strict=True)
            ]
        for job in jobs:
            job.result()


def below(name: str, root: str) -> Path:
    """A photo's path below `root`, one that any disk takes and without steps upwards: a prepared dataset's names may be
    anybody's."""
    parts = [part for part in Path(os.path.relpath(name, root)).parts if part not in ("..", "/")]
    return Path(*map(fitting, parts or ["photo"]))


def fitting(part: str) -> str:
    """A name for a file or folder that any disk takes, of a part of a path that may be anything."""
    part = part.replace("\0", "_")
    if len(os.fsencode(part)) <= LONGEST_NAME:
        return part
    return f"{part[: LONGEST_NAME // 8]}-{hashlib.sha256(os.fsencode(part)).hexdigest()[:16]}"


def common(names: Sequence[str]) -> str:
    """The folder that all of them lie in, "" for none."""
    try:
        return os.path.commonpath([os.path.dirname(name) for name in names])
    except ValueError:  # paths from the root and others
        return ""


def middle(picture: np.ndarray) -> np.ndarray:
    """At most WINDOW x WINDOW pixels around the centre."""
    h, w = picture.shape[:2]
    top, left = (max(0, (length - WINDOW) // 2) for length in (h, w))
    return picture[top : top + WINDOW, left : left + WINDOW]


def part(picture: np.ndarray) -> str:
    """What `middle` shows of a picture, in words; empty when that is all of it."""
    h, w = picture.shape[:2]
    return f"the middle of {w} × {h} px" if max(h, w) > WINDOW else ""
