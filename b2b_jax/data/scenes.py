"""Generated photographs by the thousand: drawn by parallel processes, kept in files. See dead_leaves.py for one.

Arrays are uint8 RGB, (count, size, size, 3).
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from b2b_jax import arrays, files, terminal
from b2b_jax.data.dead_leaves import VERSION, check, scene

BLOCK = 8  # scenes that a worker process hands over at once


def generate(
    seed: int, count: int, size: int = 160, workers: int | None = None, progress: bool = True, first: int = 0
) -> np.ndarray:
    """Draws the scenes `first` to `first + count - 1` of a family, in parallel processes.

    Args:
        seed: of the family, as in `scene`.
        count: number of scenes, not negative.
        size: width and height in pixels.
        workers: number of processes; None takes one per core, or none of its own for fewer than 64 scenes.
        progress: shows a bar.
        first: index of the first scene.

    Returns:
        uint8 (count, size, size, 3); the same for every number of workers.

    Raises:
        ValueError: as in `scene`.
        RuntimeError: if a worker process dies.
    """
    check(seed, first, size)
    if workers is None:
        workers = 1 if count < 64 else os.cpu_count() or 1
    scenes = np.empty((count, size, size, 3), np.uint8)
    blocks = [range(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]
    with terminal.bar(total=count, desc="scenes", unit="scene", disable=not progress) as bar:
        filled = (
            _filled_here(scenes, blocks, seed, first)
            if workers <= 1 or len(blocks) <= 1
            else _filled_by_workers(scenes, blocks, seed, first, min(workers, len(blocks)))
        )
        for block in filled:
            bar.update(len(block))
    return scenes


def _filled_here(scenes: np.ndarray, blocks: list[range], seed: int, first: int) -> Iterator[range]:
    """Fills `scenes` in this process; yields each block when it is done."""
    for block in blocks:
        for index in block:
            scenes[index] = scene(seed, first + index, scenes.shape[1])
        yield block


def _filled_by_workers(scenes: np.ndarray, blocks: list[range], seed: int, first: int, workers: int) -> Iterator[range]:
    """Fills `scenes` from child processes, which take the blocks in turn; yields each block when it is done."""
    children = [_start_worker(seed, first, *scenes.shape[:2], worker, workers) for worker in range(workers)]
    try:
        for turn, block in enumerate(blocks):
            pixels = memoryview(scenes[block.start : block.stop])
            if children[turn % workers].stdout.readinto(pixels) < pixels.nbytes:
                raise RuntimeError(f"A process that draws scenes died at scene {first + block.start} of seed {seed}.")
            yield block
    finally:
        for child in children:
            child.terminate()
            child.communicate()


def _start_worker(*arguments: int) -> subprocess.Popen:
    """Runs `_work` with these arguments in a new interpreter that loads numpy, Pillow and this file only.

    Not by `multiprocessing`: its children import the parent's main module, and with it jax, and a script without a
    main guard would start itself again in each of them.
    """
    # The path is set in the child, not by PYTHONPATH: a file of the current folder must not stand for Python's own.
    program = f"import sys; sys.path[:] = {sys.path!r}; from b2b_jax.data import scenes; scenes._work(*{arguments!r})"
    quiet = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # a process per core
    command, environment = [sys.executable, "-c", program], os.environ | quiet
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
    # Its own process group: Ctrl-C reaches only the parent, which ends its workers; if it dies, their pipe breaks.
    return subprocess.Popen(command, **streams, env=environment, process_group=0)


def _work(seed: int, first: int, count: int, size: int, worker: int, workers: int) -> None:
    """Writes every `workers`-th block to the standard output, as raw bytes; ends when nobody reads them any more."""
    for start in range(worker * BLOCK, count, workers * BLOCK):
        scenes = [scene(seed, first + index, size) for index in range(start, min(start + BLOCK, count))]
        try:
            sys.stdout.buffer.write(b"".join(drawn.tobytes() for drawn in scenes))
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            os._exit(1)  # a normal exit would flush again and print the same error


def cached(
    path: Path,
    seed: int,
    count: int,
    size: int = 160,
    workers: int | None = None,
    progress: bool = True,
    first: int = 0,
) -> np.ndarray:
    """`generate`, kept in a file: drawn once, then memory-mapped.

    The parameters stand beside `path` in a .json file, which is removed before and written after the array: whenever
    the process is killed, the pair agrees or is made anew. So is a file of other parameters or of another VERSION.

    Args:
        path: of the `.npy` file; its folder is created.
        seed, count, size, workers, progress, first: as in `generate`.

    Returns:
        uint8 (count, size, size, 3), read-only.

    Raises:
        ValueError: if `path` does not end in .npy, or as in `scene`.
    """
    path = Path(path)
    if path.suffix != ".npy":
        raise ValueError(f"cached() got the path {path}; wants one that ends in .npy.")
    label = path.with_suffix(".json")
    wanted = {"version": VERSION, "seed": seed, "first": first, "count": count, "size": size}
    kept = _load(path, label, wanted)
    if kept is not None:
        return kept
    label.unlink(missing_ok=True)
    arrays.write(path, generate(seed, count, size, workers, progress, first))
    files.write_json(label, wanted)
    return np.load(path, mmap_mode="r")


def _load(path: Path, label: Path, wanted: dict[str, int]) -> np.ndarray | None:
    """The array at `path`, if it is whole and `label` says what is wanted."""
    try:
        if json.loads(label.read_bytes()) == wanted:
            return np.load(path, mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):  # the latter two: a file that was cut short or emptied
        pass
    return None
