"""A translator that can only convolve: it reads from a photo which kernel would help, and applies it.

    gradients of the luma, Hann-windowed  ->  their cepstrum, or the autocorrelation of each over its peak; its centre
    ->  2 layers (GELU)  ->  softmax over the pixels of a kernel  ->  photo * kernel

A convolution cannot hallucinate, and the identity and every filter without negative weights are special cases: a
constant prediction. Images are NHWC float32 in [0, 1].
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy import fft

from b2b_jax.models.autocorrelation import autocorrelations, hann
from b2b_jax.models.camera import filtered
from b2b_jax.models.cepstrum import Whitened, cepstra

Array = jax.Array

READS = {"autocorrelation": autocorrelations, "cepstrum": cepstra}


class KernelField(nn.Module):
    """(n, h, w, 3) -> (n, h, w, 3), of any size.

    size: of a kernel, odd, in pixels. reads: what it reads of a photo, a key of READS. lags: pixels that this reaches
    to each side. width: of the two hidden layers. window: pixels of a square that is read at once; a photo's windows
    overlap by half. field: a kernel for each window, blended smoothly over the photo, instead of one for the photo,
    read from the mean over its windows. start: standard deviation in pixels of the Gaussian that the untrained kernel
    is. threshold: share of its peak below which a kernel is cut in use, and symmetric: whether it is made symmetric in
    use; training does neither.
    """

    size: int = 21
    reads: str = "autocorrelation"
    lags: int = 15
    width: int = 512
    window: int = 160
    field: bool = False
    start: float = 0.7
    threshold: float = 0.15
    symmetric: bool = True
    dtype: Any = jnp.float32  # unused: spectra and kernels are computed in float32

    @property
    def stride(self) -> int:
        """Photos of all sides are taken as they are."""
        return 1

    def setup(self) -> None:
        if self.reads == "cepstrum":
            self.whitened = Whitened()
        self.layers = [nn.Dense(self.width, name=f"layers.{i}") for i in range(2)]
        self.head = nn.Dense(self.size**2, name="logits", bias_init=lambda *_: self._gaussian())

    def __call__(self, x: Array, train: bool = False) -> Array:
        photo = x.astype(jnp.float32)
        if not self.field:
            return convolved(photo, self._finished(self.kernels(photo), train))
        cut = Windows(*photo.shape[1:3], self.window)
        n = len(photo)
        kernels = self.predicted(READS[self.reads](cut.of(photo), self.lags))
        wide = cut.of(photo, self.size // 2)
        return cut.blended(convolved_valid(wide, self._finished(kernels, train)), n)

    def kernels(self, x: Array) -> Array:
        """The softmax kernels (n, size, size) of photos (n, h, w, 3), one for each photo."""
        return self.predicted(self.features(x))

    def features(self, x: Array) -> Array:
        """What the layers read of photos (n, h, w, 3): the mean over their windows, (n, c)."""
        found = READS[self.reads](Windows(*x.shape[1:3], self.window).of(x), self.lags)
        return found.reshape(len(x), -1, found.shape[-1]).mean(1)

    def predicted(self, features: Array) -> Array:
        """Softmax kernels (m, size, size) for m rows of features."""
        return jax.nn.softmax(self.logits(features)).reshape(-1, self.size, self.size)

    def logits(self, features: Array, train: bool = False) -> Array:
        """(m, size²) for m rows of features, which kernels are the softmax of."""
        if self.reads == "cepstrum":
            features = self.whitened(features, train)
        for layer in self.layers:
            features = nn.gelu(layer(features))
        return self.head(features)

    def _finished(self, kernels: Array, train: bool) -> Array:
        """Kernels as they are used: cut below the threshold, made symmetric."""
        return kernels if train else finished(kernels, self.threshold, self.symmetric)

    def _gaussian(self) -> Array:
        square = jnp.square((jnp.arange(self.size) - self.size // 2) / self.start)
        return -0.5 * (square[:, None] + square).ravel()


# ------------------------------------------------------------------------------------------------------------- windows


class Windows:
    """The windows of photos of one size: squares of `window` pixels, or less, that overlap by half."""

    def __init__(self, height: int, width: int, window: int):
        self.shape = height, width
        self.sides = min(height, window), min(width, window)
        self.starts = [self._starts(length, side) for length, side in zip(self.shape, self.sides, strict=True)]

    @staticmethod
    def _starts(length: int, side: int) -> list[int]:
        """Evenly spread starts, at most half a side apart, from border to border."""
        count = -(-2 * (length - side) // side) + 1 if length > side else 1
        return [round(i * (length - side) / max(count - 1, 1)) for i in range(count)]

    def of(self, x: Array, margin: int = 0) -> Array:
        """The windows of photos (n, h, w, c), each larger by `margin` mirrored pixels: (n · windows, s, t, c)."""
        x, (s, t) = mirrored(x, margin), (side + 2 * margin for side in self.sides)
        cut = [x[:, r : r + s, c : c + t] for r in self.starts[0] for c in self.starts[1]]
        return jnp.stack(cut, axis=1).reshape(-1, s, t, x.shape[-1])

    def blended(self, windows: Array, n: int) -> Array:
        """Photos (n, h, w, c) from their windows (n · windows, s, t, c), weighted by Hann windows."""
        (s, t), weight = self.sides, hann(self.sides[0])[:, None] * hann(self.sides[1])
        windows = windows.reshape(n, -1, s, t, windows.shape[-1])
        total, weights = jnp.zeros((n, *self.shape, windows.shape[-1])), np.zeros(self.shape, np.float32)
        places = [(r, c) for r in self.starts[0] for c in self.starts[1]]
        for i, (r, c) in enumerate(places):
            total = total.at[:, r : r + s, c : c + t].add(weight[:, :, None] * windows[:, i])
            weights[r : r + s, c : c + t] += weight
        return total / weights[:, :, None]


# ----------------------------------------------------------------------------------------------------------- convolving


def finished(kernels: Array, threshold: float, symmetric: bool) -> Array:
    """Kernels (n, k, k) of sum 1, cut below `threshold` of their peaks and made symmetric."""
    kernels = jnp.where(kernels < threshold * kernels.max((1, 2), keepdims=True), 0.0, kernels)
    kernels = kernels + kernels[:, ::-1, ::-1] if symmetric else kernels
    return kernels / kernels.sum((1, 2), keepdims=True)


def convolved(x: Array, kernels: Array) -> Array:
    """Photos (n, h, w, c) convolved with kernels (n, k, k), borders mirrored without repeating the edge."""
    return convolved_valid(mirrored(x, kernels.shape[-1] // 2), kernels)


def convolved_valid(x: Array, kernels: Array) -> Array:
    """Photos (n, h, w, c) convolved with kernels (n, k, k): (n, h - k + 1, w - k + 1, c)."""
    (h, w), k = x.shape[1:3], kernels.shape[-1]
    sides = fft.next_fast_len(h, real=True), fft.next_fast_len(w, real=True)
    return filtered(x, [kernels], sides)[:, k - 1 : h, k - 1 : w]


def mirrored(x: Array, margin: int, sides: tuple[int, int] | None = None) -> Array:
    """Photos (n, h, w, c) with `margin` mirrored pixels on every side; a single row or column is repeated.

    sides: of the result; what it has beyond the margins is mirrored as well, behind the last pixels.
    """
    for axis in (1, 2):
        behind = margin if sides is None else sides[axis - 1] - x.shape[axis] - margin
        pads = [(margin, behind) if i == axis else (0, 0) for i in range(4)]
        x = jnp.pad(x, pads, "reflect" if x.shape[axis] > 1 else "edge")
    return x
