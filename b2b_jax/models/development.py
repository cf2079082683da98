"""A camera's processing undone: its sharpening divided out, its noise held against the photo's own power.

    photo · max(0, 1 - noise / power) / mask          of spectra

Wiener's filter. The power is that of the photo, the noise that of the camera, both by the distance of a frequency from
the origin; the mask is the camera's over-sharpening. What is left of the photo is its blur, which a deblurrer may know.
Images are NHWC float32 in [0, 1].
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import fft

from b2b_jax.models.autocorrelation import hann
from b2b_jax.models.camera import HALO, sharpener, spectra
from b2b_jax.models.kernel_field import mirrored

Array = jax.Array

BINS = 33  # of a noise spectrum: 0 to half a cycle a pixel in even steps
MARGIN = 2 * HALO  # mirrored pixels around a photo


def undone(photo: Array, noise: Array, amount: Array, sigma: Array) -> Array:
    """Photos (n, h, w, 3) without what the camera did behind its lens.

    Args:
        photo: as the camera stores it.
        noise: (BINS,), power of a pixel's noise at each distance, of the mean of the channels; zeros for none.
        amount, sigma: (), of the unsharp mask, as in `models.camera.Shot`; an amount of 0 for none.
    """
    (h, w), along = photo.shape[1:3], (1, 2)
    sides = tuple(fft.next_fast_len(side + 2 * MARGIN, real=True) for side in (h, w))
    mask = spectra(sharpener(amount[None], sigma[None]), sides).real  # it is symmetric
    gain = between(gains(photo, noise), radius(*sides)) / mask
    # Zeros would do for a short filter, but one that takes noise from a smooth photo reaches across all of it.
    spectrum = jnp.fft.rfft2(mirrored(photo, MARGIN, sides), axes=along) * gain[..., None]
    clean = jnp.fft.irfft2(spectrum, sides, axes=along)[:, MARGIN : MARGIN + h, MARGIN : MARGIN + w]
    return jnp.clip(clean, 0.0, 1.0)


def gains(photo: Array, noise: Array) -> Array:
    """What to keep of each photo at each distance, its mean always: (n, BINS)."""
    h, w = photo.shape[1:3]
    weight = hann(h)[:, None] * hann(w)
    grey = photo.mean(-1)
    spectrum = jnp.fft.rfft2((grey - grey.mean((1, 2), keepdims=True)) * weight)
    power = (jnp.square(spectrum.real) + jnp.square(spectrum.imag)) / np.square(weight).sum()
    nearest = np.minimum(np.rint(radius(h, w) * 2 * (BINS - 1)).astype(int), BINS - 1).ravel()
    count = np.bincount(nearest, minlength=BINS)
    mean = jax.ops.segment_sum(power.reshape(len(photo), -1).T, nearest, BINS).T / np.maximum(count, 1)
    mean = jnp.where(count > 0, mean, jnp.inf)  # where a small photo has no frequency nothing is known
    kept = jnp.maximum(0.0, 1 - noise / jnp.maximum(mean, jnp.finfo(jnp.float32).tiny))
    return kept.at[:, 0].set(1.0)


def between(values: Array, distance: np.ndarray) -> Array:
    """Values (n, BINS) at distances (p, q), in lines between the steps: (n, p, q)."""
    place = np.minimum(distance * 2 * (BINS - 1), BINS - 1)
    below = np.minimum(place.astype(int), BINS - 2)
    share = (place - below).astype(np.float32)
    return values[:, below] * (1 - share) + values[:, below + 1] * share


def radius(h: int, w: int) -> np.ndarray:
    """Distances of the frequencies of `rfft2` from the origin, in cycles a pixel: (h, w // 2 + 1)."""
    return np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)).astype(np.float32)
