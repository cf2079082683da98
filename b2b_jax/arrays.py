"""Arrays on disk, as .npy files."""

from pathlib import Path

import numpy as np

from b2b_jax import files


def write(path: Path, array: np.ndarray) -> None:
    """Writes an array so that `path` holds all of it or what it held before; missing folders are made.

    numpy.save tells of a full disk without the error's number.

    Raises:
      OSError: the disk is full or the folder cannot be written.
    """
    array = np.asarray(array, order="C")
    with files.draft(path) as part, part.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)
