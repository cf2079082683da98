"""A translator that can only convolve: with the mean of what each shot of a learnt camera needs, if the photo is of it.

    photo  ->  reader's u          p(shot | photo) = softmax over the shots of (u · v + log of the shot's weight)
    undone(photo) * Σ p(shot | photo) · filling kernel of the shot

`models.development.undone` takes back what the camera does behind its lens, so that what is filled is its blur alone;
noise, JPEG and a response are taken away by a network before, where there is one. The reader and the weights are those
of a camera learnt by likelihood. Images are NHWC float32 in [0, 1].
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from b2b_jax.models.development import BINS, undone
from b2b_jax.models.kernel_field import Windows, convolved, finished
from b2b_jax.models.outputs import restored
from b2b_jax.models.reader import Reader, score

Array = jax.Array

RULES = ("alone", "held", "filled")
"""Of `models.consistent`: the undone photo is deblurred; its result is held to the photo; filled ones compete."""
ALONE, HELD, FILLED = RULES


class KernelMixture(nn.Module):
    """(n, h, w, 3) -> (n, h, w, 3), of any size; one kernel for a photo.

    count: shots. size, reach: of their filling kernels, and of all that they convolve with, odd, in pixels. lags,
    width, dim, window: the reader's. threshold, symmetric: as in KernelField. denoiser: a network that takes noise,
    JPEG and a response from photos, if there is one. rule, step: for `models.consistent`, one of RULES, and how far to
    go towards agreement with the photo, 0 to 1.
    """

    count: int = 1
    size: int = 21
    reach: int = 21
    lags: int = 15
    width: int = 512
    dim: int = 64
    window: int = 240
    threshold: float = 0.15
    symmetric: bool = True
    denoiser: nn.Module | None = None
    rule: str = FILLED
    step: float = 1.0
    dtype: Any = jnp.float32  # unused: spectra and kernels are computed in float32

    stride = 1

    def setup(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"the rule of a kernel mixture is {self.rule!r}, wanted one of {', '.join(RULES)}")
        self.reader = Reader(self.lags, self.width, self.dim, window=self.window)
        zeros, n = nn.initializers.zeros, self.count
        self.shots = self.param("shots", zeros, (n, self.dim))  # v of each
        self.weight = self.param("weight", nn.initializers.constant(1 / n), (n,))
        self.filling = self.param("filling", zeros, (n, self.size, self.size))
        self.kernel = self.param("kernel", zeros, (n, self.reach, self.reach))  # its blur and its sharpening
        self.noise = self.param("noise", zeros, (BINS,))  # of the camera, and its
        self.amount = self.param("amount", zeros, ())  # of sharpening
        self.sigma = self.param("sigma", nn.initializers.ones, ())

    def __call__(self, x: Array, train: bool = False) -> Array:
        photo = x.astype(jnp.float32)
        return self.filled(self.undone(self.denoised(photo)), self.kernels(photo))

    def denoised(self, photo: Array) -> Array:
        """Photos (n, h, w, 3) by the denoiser; as they are, where there is none."""
        return photo if self.denoiser is None else restored(self.denoiser, self.denoiser, photo)

    def undone(self, photo: Array) -> Array:
        """Denoised photos (n, h, w, 3) without the camera's sharpening, and without the noise that is left."""
        return undone(photo, self.noise, self.amount, self.sigma)

    def kernels(self, x: Array) -> Array:
        """The mean filling kernels (n, size, size) of photos (n, h, w, 3)."""
        return self.mean(self.shares(x))

    def mean(self, shares: Array) -> Array:
        """The mean filling kernels (n, size, size) of shares (n, count)."""
        return jnp.einsum("nm,mij->nij", shares, self.filling)

    def filled(self, photo: Array, kernels: Array) -> Array:
        """Photos (n, h, w, 3) convolved with filling kernels (n, size, size)."""
        return convolved(photo, finished(kernels, self.threshold, self.symmetric))

    def candidates(self, photo: Array, shares: Array) -> Array:
        """Denoised photos undone, then also filled on the mean, or as their likeliest shot needs: (n, 3, h, w, 3)."""
        likeliest, clean = self.filling[shares.argmax(1)], self.undone(photo)
        return jnp.stack([clean, *(self.filled(clean, k) for k in (self.mean(shares), likeliest))], axis=1)

    def likeliest(self, shares: Array, most: int) -> Array:
        """What the likeliest shots convolve with, `most` at most: (n, m, reach, reach)."""
        return self.kernel[jax.lax.top_k(shares, min(most, self.count))[1]]

    def shares(self, x: Array) -> Array:
        """How likely each shot made each photo: (n, count), of sum 1."""
        u = self.reader.of_photos(self.reader.features(Windows(*x.shape[1:3], self.window).of(x)))
        u = u.reshape(len(x), -1, self.dim).mean(1)  # over windows: as sure as one of them
        return jax.nn.softmax(score(u, self.shots) + jnp.log(self.weight), axis=-1)
