"""How well a photo fits a shot of a camera: reads blur from the photo, and is shown what each shot does.

    photo  ->  cepstrum of its gradients                            ->  2 layers  ->  u
    shot   ->  autocorrelation of its kernel and sharpening, noise  ->  2 layers  ->  v          score = u · v / √dim

Trained to find the shot of a photo among others (van den Oord et al., arXiv 1807.03748), the score becomes the
logarithm of p(photo | shot), but for a constant of each photo.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from scipy import fft

from b2b_jax.models.camera import Shot, sharpener
from b2b_jax.models.cepstrum import Whitened, cepstra

Array = jax.Array

SCALE = 4.0  # brings the autocorrelations of kernels to a standard deviation of about 1
NOISE_SCALE = 50.0  # the same for the noise of a shot


class Reader(nn.Module):
    """Photos (n, h, w, 3) and m shots -> scores (n, m); without shots against one that does nothing.

    lags: pixels that cepstra and autocorrelations reach to each side. width: of the two hidden layers of each part.
    dim: of u and v. dropout: in the hidden layers, and noise: standard deviation added to cepstra, as a share of
    theirs, in training; without them it remembers the few photos that it is taught with. window: pixels a side of the
    photos that it is taught with, and should be shown.
    """

    lags: int = 15
    width: int = 512
    dim: int = 64
    dropout: float = 0.5
    noise: float = 0.25
    window: int = 240
    dtype: Any = jnp.float32  # unused: spectra are computed in float32

    def setup(self) -> None:
        self.whitened = Whitened()
        self.reading = Tower(self.width, self.dim, self.dropout)
        self.knowing = Tower(self.width, self.dim, self.dropout)

    def __call__(self, x: Array, shot: Shot | None = None, train: bool = False) -> Array:
        return self.scores(self.features(x), shot or Shot(jnp.ones((1, 1, 1)), None, None, None, None), train)

    def scores(self, features: Array, shot: Shot, train: bool = False) -> Array:
        """Scores (n, m) of n rows of features."""
        return score(self.of_photos(features, train), self.of_shots(shot, train))

    def of_photos(self, features: Array, train: bool = False) -> Array:
        """u (n, dim) of n rows of features."""
        features = self.whitened(features, train)
        if train:
            features = features + self.noise * jax.random.normal(self.make_rng("dropout"), features.shape)
        return self.reading(features, train)

    def of_shots(self, shot: Shot, train: bool = False) -> Array:
        """v (m, dim) of m shots."""
        return self.knowing(SCALE * described(shot, self.lags), train)

    def features(self, x: Array) -> Array:
        """What is read of photos (n, h, w, 3): (n, (2 lags + 1)²)."""
        return cepstra(x, self.lags)


def score(u: Array, v: Array) -> Array:
    """How well photos (n, dim) fit shots (m, dim): (n, m)."""
    return u @ v.T / jnp.sqrt(u.shape[-1])


class Tower(nn.Module):
    """Rows (n, c) -> (n, dim)."""

    width: int
    dim: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for i in range(2):
            x = nn.gelu(nn.Dense(self.width, name=f"layers.{i}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.dim, name="out")(x)


def described(shot: Shot, lags: int) -> Array:
    """What is shown of m shots: the autocorrelation of all that they convolve with, over its peak, and their noise."""
    size = shot.kernel.shape[-1]
    side = fft.next_fast_len(2 * size + 2 * lags + 1, real=True)
    power = jnp.square(jnp.abs(jnp.fft.rfft2(shot.kernel, (side, side))))
    if shot.amount is not None:
        power = power * jnp.square(jnp.abs(jnp.fft.rfft2(sharpener(shot.amount, shot.sigma), (side, side))))
    found = jnp.fft.irfft2(power, (side, side))
    around = jnp.arange(-lags, lags + 1)
    found = (found / found[:, :1, :1])[:, around[:, None], around].reshape(len(found), -1)
    noise = jnp.zeros(len(found)) if shot.noise is None else shot.noise
    return jnp.concatenate([found, NOISE_SCALE * noise[:, None]], axis=1)
