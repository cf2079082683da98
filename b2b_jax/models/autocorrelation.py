"""The autocorrelation of a photo's gradients: nearly that of its blur.

Sharp edges are uncorrelated, blur repeats them, and white noise adds to the peak alone. What a photo shows is hardly in
it: neither colour, contrast nor place.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import fft

Array = jax.Array

LUMA = (0.299, 0.587, 0.114)
SILENT = 1e-9  # mean squared gradient of a window that shows nothing: its autocorrelation is left near 0
FAINT = 1e-3  # a quarter of a grey level: weaker gradients are all the same


def autocorrelations(windows: Array, lags: int) -> Array:
    """Of both gradients of the luma of windows (m, s, t, 3): (m, 2 (2 lags + 1)²), each over its peak, at zero lag.

    Windows that show nothing give zeros. Lags beyond a window give zeros.
    """
    h, w = windows.shape[1:3]
    seen = gradients(windows) * hann(h)[:, None] * hann(w)
    # Padded by the lags, so that what wraps around lies beyond them.
    sides = tuple(fft.next_fast_len(max(side, lags + 1) + lags, real=True) for side in (h, w))
    spectrum = jnp.fft.rfft2(seen, sides)
    found = jnp.fft.irfft2(jnp.square(spectrum.real) + jnp.square(spectrum.imag), sides)
    peak = found[..., :1, :1] + SILENT * h * w
    around = np.arange(-lags, lags + 1)
    return (found / peak)[..., around[:, None], around].reshape(len(windows), -1)


def strengths(windows: Array) -> Array:
    """Root mean square of both gradients of the luma of windows (m, s, t, 3), in a logarithm of base e: (m, 2)."""
    return 0.5 * jnp.log(jnp.square(gradients(windows)).mean((2, 3)) + FAINT**2)


def gradients(windows: Array) -> Array:
    """Forward differences of the luma of windows (m, s, t, 3) along x and y, 0 at the end: (m, 2, s, t)."""
    luma = windows @ jnp.asarray(LUMA)
    dx = jnp.diff(luma, axis=2, append=luma[:, :, -1:])
    dy = jnp.diff(luma, axis=1, append=luma[:, -1:])
    return jnp.stack([dx, dy], axis=1)


def hann(side: int) -> np.ndarray:
    """A Hann window of `side` pixels, nowhere 0; half-overlapping ones of an even side sum to 1."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(side) + 0.5) / side)).astype(np.float32)
