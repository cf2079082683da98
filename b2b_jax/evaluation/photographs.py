"""Real photographs that come with scikit-image, for a test on what nobody generated: uint8 RGB."""

import numpy as np
from skimage import color, data

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")  # all its colour photographs of everyday scale


LARGEST_TILE = 512  # pixels: the astronaut is one


def tiles(size: int) -> np.ndarray:
    """All whole squares of `size` pixels of the photographs, side by side from the top left: (n, size, size, 3)."""
    found = []
    for name in PHOTOGRAPHS:
        photo = getattr(data, name)()
        rows, columns = (length // size for length in photo.shape[:2])
        found += [
            photo[r * size : (r + 1) * size, c * size : (c + 1) * size] for r in range(rows) for c in range(columns)
        ]
    return np.stack(found)


def clock() -> np.ndarray:
    """`clock_motion`, a photo taken with a moving camera: (h, w, 3), grey."""
    return color.gray2rgb(data.clock())
