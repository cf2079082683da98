"""The cepstrum of a photo: where blur adds to what the photo shows, instead of being mixed with it.

    cepstrum = inverse Fourier transform of log(power spectrum of both gradients + floor)

The spectrum of a blurry photo is that of the sharp one times that of the kernel, so their cepstra add up: two copies
leave a row of peaks at multiples of their distance, even motion a negative peak at its length. Rom, "On the cepstrum of
two-dimensional functions", IEEE Transactions on Information Theory, 1975. Photos differ most where blur tells least,
near the axes and the origin; `Whitened` brings all lags to one scale.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy import fft

from b2b_jax.models.autocorrelation import LUMA, gradients, hann

Array = jax.Array

# Expected power of what rounding to 8 bits leaves in both gradients of the luma, for a window of weights w: FLOOR Σ w².
FLOOR = 4 * sum(share**2 for share in LUMA) / 12 / 255**2


def cepstra(windows: Array, lags: int) -> Array:
    """Of windows (m, s, t, 3): (m, (2 lags + 1)²), 0 at zero lag, which only tells how strong the gradients are."""
    h, w = windows.shape[1:3]
    weight = hann(h)[:, None] * hann(w)
    sides = tuple(fft.next_fast_len(max(side, lags + 1) + lags, real=True) for side in (h, w))
    spectrum = jnp.fft.rfft2(gradients(windows) * weight, sides)
    power = (jnp.square(spectrum.real) + jnp.square(spectrum.imag)).sum(1)
    floor = 2 * FLOOR * float(np.square(weight).sum())  # so that rounding counts little
    around = np.arange(-lags, lags + 1)
    found = jnp.fft.irfft2(jnp.log(power + floor), sides)[:, around[:, None], around]
    return found.at[:, lags, lags].set(0.0).reshape(len(windows), -1)


class Whitened(nn.Module):
    """Features (n, c), each of mean 0 and deviation 1 over photos: those of the batch in training, else the average."""

    momentum: float = 0.95
    epsilon: float = 1e-7  # far below the variance of a cepstrum at large lags, 1e-5

    @nn.compact
    def __call__(self, features: Array, train: bool) -> Array:
        options = {"momentum": self.momentum, "epsilon": self.epsilon, "use_scale": False, "use_bias": False}
        return nn.BatchNorm(use_running_average=not train, name="statistics", **options)(features)
