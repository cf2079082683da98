"""Checkpoints of flax as .npz: the arrays of a flattened tree under names such as `opt/target/stage_0/kernel`.

Read as data: no pickles, and each array's size is compared with its entry before it is made.
"""

import math
from pathlib import Path

import numpy as np

from b2b_jax.formats.opening import Problem, Window, mapped
from b2b_jax.formats.zips import Archive

PREFIXES = ("opt/target/", "params/")  # the parameters of an optimiser's state, or of variables
SUFFIX = ".npy"
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def is_checkpoint(path: Path) -> bool:
    """Whether a zip archive is whole, and one of arrays alone."""
    try:
        names = Archive(mapped(path)).entries
    except Problem:
        return False
    return bool(names) and all(name.endswith(SUFFIX) for name in names)


def read(path: Path) -> dict[str, np.ndarray]:
    """The parameters of a checkpoint.

    Returns:
      Paths such as `stage_0_input_conv_0/kernel` to arrays in flax's layouts. What stands beside the parameters (an
      optimiser's moments, the step) is not read.

    Raises:
      Problem: the file is damaged, holds objects, or claims sizes that it does not have.
      OSError: it cannot be opened.
    """
    archive = Archive(mapped(path))
    names = [name.removesuffix(SUFFIX) for name in archive.entries]
    prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in names)), "")
    wanted = sorted(name for name in names if name.startswith(prefix))
    return {name.removeprefix(prefix): _array(name, archive.read(name + SUFFIX)) for name in wanted}


def _array(name: str, data: np.ndarray) -> np.ndarray:
    file = Window(data)
    try:
        shape, dtype, fortran = _header(file)
        numbers = data[file.tell() :]
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != numbers.size:
            raise Problem(f"{name} claims {shape} of {dtype}, its entry has {data.size:,} bytes")
        array = np.frombuffer(numbers.tobytes(), dtype)  # aligned, as the entry need not be
        return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
    except Problem:
        raise
    except Exception as error:  # damaged bytes can raise anything
        raise Problem(f"{name} is no whole array ({error})") from error


def _header(file: Window) -> tuple[tuple[int, ...], np.dtype, bool]:
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise Problem(f"arrays of version {version} are not known")
    shape, fortran, dtype = HEADERS[version](file)
    return shape, dtype, fortran
