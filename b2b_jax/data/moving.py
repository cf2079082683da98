"""Blur that varies over the frame: a camera that rolls or zooms while its shutter is open.

The photo is the average of what the camera sees on its way. Images are float (h, w, 3); ranges (low, high) are drawn
from uniformly. What is outside of the photo is mirrored.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import ndimage

from b2b_jax.data import blur

Range = tuple[float, float]
STEPS = 17  # moments of an exposure: neighbours are less than a pixel apart for paths of up to 16 pixels


def rotation(
    rng: np.random.Generator, photo: np.ndarray, angle: Range = (2.0, 6.0), about: Range = (0.25, 0.75)
) -> np.ndarray:
    """A camera that rolls about a point of the frame.

    Args:
        rng: gives the angle, its sign, then the point.
        photo: sharp.
        angle: range of the whole turn, in degrees.
        about: range of the point's place, as shares of the height and of the width.

    Returns:
        float32, the shape of `photo`.
    """
    turn = np.deg2rad(rng.uniform(*angle)) * rng.choice([-1, 1])
    angles = turn * np.linspace(-0.5, 0.5, STEPS)
    matrices = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles]
    return _averaged(photo, matrices, rng.uniform(*about, 2))


def zoom(
    rng: np.random.Generator, photo: np.ndarray, factor: Range = (1.04, 1.12), about: Range = (0.25, 0.75)
) -> np.ndarray:
    """A camera that zooms in on a point of the frame.

    Args:
        rng: gives the factor, then the point.
        photo: sharp.
        factor: range of the magnification from the first moment to the last.
        about: as in `rotation`.

    Returns:
        float32, the shape of `photo`.
    """
    whole = np.log(rng.uniform(*factor))
    matrices = [np.eye(2) * np.exp(share * whole) for share in np.linspace(-0.5, 0.5, STEPS)]
    return _averaged(photo, matrices, rng.uniform(*about, 2))


MOTIONS: dict[str, Callable[..., np.ndarray]] = {"rotation": rotation, "zoom": zoom}


def expose(rng: np.random.Generator, photo: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """The photo under a random blur as a config describes it: one of the MOTIONS, or a kernel of `blur.KERNELS`.

    Raises:
        ValueError: if the kind or a parameter is unknown; names the nearest known one.
    """
    make, parameters = blur.chosen(spec, blur.KERNELS | MOTIONS)
    if spec["kind"] in MOTIONS:
        return make(rng, photo, **parameters)
    return blur.apply(photo, make(rng, **parameters))


def _averaged(photo: np.ndarray, matrices: list[np.ndarray], about: np.ndarray) -> np.ndarray:
    """The mean of the photo under linear maps (2, 2) of the frame, rows before columns, about a point."""
    centre = about * (np.array(photo.shape[:2]) - 1)
    total = np.zeros(photo.shape, np.float32)
    for matrix in matrices:
        offset = centre - matrix @ centre
        for channel in range(photo.shape[2]):
            total[..., channel] += ndimage.affine_transform(
                photo[..., channel], matrix, offset, order=1, mode="mirror", output=np.float32
            )
    return total / len(matrices)
