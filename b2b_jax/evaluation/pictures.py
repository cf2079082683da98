"""The results of an evaluation as PNG files, under names that any disk takes."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax

from b2b_jax import images, levels

LONGEST_NAME = 200  # bytes; file systems take 255, with the suffix and the mark of a draft


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
