"""How sharp a photo is: the variance of its Laplacian. Higher is sharper; it depends on the scene and the size, too."""

import numpy as np


def laplacian_variance(image: np.ndarray) -> float:
    """Variance of the 4-neighbour Laplacian of the channel mean of an image (h, w, 3) in [0, 255], taken to [0, 1].

    The same number as the curriculum's; 0 for an image that has no pixel with four neighbours.
    """
    x = image.mean(-1, dtype=np.float32) / 255  # whole numbers add up exactly
    laplacian = x[2:, 1:-1] + x[:-2, 1:-1] + x[1:-1, 2:] + x[1:-1, :-2] - 4 * x[1:-1, 1:-1]
    return float(laplacian.var()) if laplacian.size else 0.0
