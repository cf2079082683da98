"""Checkpoints of flax as .npz: the arrays of a flattened tree under names such as `opt/target/stage_0/kernel`.

Read as data: no pickles, and each array's size is compared with its entry before it is allocated.
"""

import math
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

PREFIXES = ("opt/target/", "params/")  # the parameters of an optimiser's state, or of variables
SUFFIX = ".npy"
MOST_UNPACKED = 100  # times the size of the file
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a zip archive of arrays."""
    if path.is_dir() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return bool(names) and all(name.endswith(SUFFIX) for name in names)


def read(path: Path) -> dict[str, np.ndarray]:
    """The parameters of a checkpoint.

    Returns:
      Paths such as `stage_0_input_conv_0/kernel` to arrays in flax's layouts. What stands beside the parameters (an
      optimiser's moments, the step) is not read.

    Raises:
      ValueError: the file is damaged, holds objects, or claims sizes that it does not have.
      OSError: it cannot be opened.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename.removesuffix(SUFFIX): info for info in archive.infolist()}
            prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in entries)), "")
            wanted = {name: info for name, info in entries.items() if name.startswith(prefix)}
            most, total = path.stat().st_size * MOST_UNPACKED, sum(info.file_size for info in wanted.values())
            if total > most:
                raise ValueError(f"refused: it unpacks to {total:,} bytes, more than {MOST_UNPACKED} times its size")
            return {name.removeprefix(prefix): _array(archive, info) for name, info in sorted(wanted.items())}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path}: not a whole checkpoint of flax ({error})") from error


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        shape, dtype, fortran = _header(file)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or size != info.file_size - file.tell():
            raise ValueError(f"{info.filename} claims {shape} of {dtype}, its entry has {info.file_size:,} bytes")
        data = np.frombuffer(file.read(), dtype)
    return data.reshape(shape[::-1]).T if fortran else data.reshape(shape)


def _header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype, bool]:
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"arrays of version {version} are not known")
    shape, fortran, dtype = HEADERS[version](file)
    return shape, dtype, fortran
