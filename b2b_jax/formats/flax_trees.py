"""Parameters of flax networks in the files of their authors: paths such as `stage_0_input_conv_0/kernel` to arrays."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from b2b_jax.formats import npz, tfjs

READERS: tuple[tuple[Callable[[Path], bool], Callable[[Path], dict[str, np.ndarray]]], ...] = (
    (npz.is_checkpoint, npz.read),
    (tfjs.is_model, tfjs.read),
)


def read(path: Path) -> dict[str, np.ndarray] | None:
    """The parameters in flax's names and layouts; None where the file is of another kind.

    Raises:
      ValueError: it is such a file, but damaged.
      OSError: it cannot be opened.
    """
    return next((reader(path) for recognised, reader in READERS if recognised(path)), None)
