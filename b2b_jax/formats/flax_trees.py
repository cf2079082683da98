"""Parameters of flax networks in the files of their authors: paths such as `stage_0_input_conv_0/kernel` to arrays."""

from pathlib import Path

import numpy as np

from b2b_jax.formats import npz, opening, tfjs
from b2b_jax.formats.opening import Problem

READERS = {"folder": tfjs.read, "json": tfjs.read, "gzip": tfjs.read, "zip": npz.read}


def read(path: Path) -> dict[str, np.ndarray] | None:
    """The parameters in flax's names and layouts; None where the file is of another kind. Its bytes say which.

    Raises:
      ValueError: it is such a file, but damaged, or asks for more than it can hold.
      OSError: it cannot be opened.
    """
    try:
        kind = opening.kind(path)
        # Whatever stands in a file of that name, the message should be TensorFlow.js's.
        kind = "json" if path.name == tfjs.MODEL and kind in ("empty", "other") else kind
        if kind not in READERS or (kind == "zip" and not npz.is_checkpoint(path)):
            return None
        return READERS[kind](path)
    except Problem as problem:
        raise ValueError(f"{path} ({opening.describe(path)}): {problem}") from None
