"""Deblurrers whose result agrees with the photo: blurred again by the learnt camera, it is the photo.

    candidates   u, u * mean filling kernel, u * likeliest filling kernel  ->  deblurrer  ->  x        u = undone(y)
    x, k         of all candidates and all likely kernels of the camera, those for which | s * (k * x - y) |² is least
    result       x - conj(K) (K X - Y) / (|K|² + noise / error)     of spectra: what k has kept of the photo, is kept

y is the photo, denoised where the mixture has a denoiser. The mixture's `rule` says how much of this is done: "alone"
returns the x of the first candidate, "held" has no other candidate, "filled" is all of it. Its `step` says how far to
go from x towards the result. A deblurrer that was adapted to the camera needs no translator: its only candidate is the
photo itself.

A deblurrer alone is never held to what the photo says. That the camera is known makes it possible: with a wrong kernel
nothing would agree. s is a small Gaussian, so that a candidate gains nothing by repeating the photo's noise. The last
line is one step of back-projection (Irani and Peleg, "Improving resolution by image registration", 1991) with Wiener's
weights: the power of the noise, which the residual shows where k has kept nothing, over that of the deblurrer's error.
Images are NHWC float32 in [0, 1].
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy import fft

from b2b_jax.models.camera import spectra
from b2b_jax.models.development import radius
from b2b_jax.models.kernel_field import mirrored
from b2b_jax.models.kernel_mixture import ALONE, FILLED, HELD, KernelMixture
from b2b_jax.models.outputs import apply

Array = jax.Array

LOST = 0.1  # share of the frequencies that a kernel keeps least of, where the residual is taken for noise
TINY = 1e-20  # power
SMOOTH = 1.0  # pixels, standard deviation of the Gaussian under which photos are compared
STEPS = (0.25, 0.5, 0.75, 1.0)  # that are tried
WAYS = ((ALONE, 0.0), *((rule, step) for rule in (HELD, FILLED) for step in STEPS))
"""Rules and steps that are tried, in order of how much of the camera they use."""


class Explained(NamedTuple):
    """Photos explained: what is in them, and how it was blurred."""

    sharp: Array  # (n, h, w, 3)
    kernel: Array  # (n, k, k)


class Consistent(nn.Module):
    """(n, h, w, 3) -> (n, h, w, 3), of any size; the variables are those of its parts.

    mixture: of the camera. deblurrer: any network from photos to photos. likely: kernels that are compared, the
    likeliest of the camera, each with its mirror image.
    """

    mixture: KernelMixture
    deblurrer: nn.Module
    likely: int = 40
    dtype: Any = jnp.float32  # of the deblurrer, for show; what agrees is computed in float32

    @property
    def stride(self) -> int:
        """The deblurrer's."""
        return self.deblurrer.stride

    @property
    def margin(self) -> int:
        """Pixels from an edge within which agreement is not whole; 0 where there is none."""
        return 0 if self.mixture.rule == ALONE else border(self.mixture.reach)

    def __call__(self, x: Array) -> Array:
        photo = x.astype(jnp.float32)
        denoised, shares = self.mixture.denoised(photo), self.mixture.shares(photo)
        candidates = self.mixture.candidates(denoised, shares)
        wanted = candidates if self.mixture.rule == FILLED else candidates[:, :1]
        restored = self.restored(wanted)
        if self.mixture.rule == ALONE:
            return restored[:, 0]
        return stepped(denoised, restored, likely(self.mixture, shares, self.likely), (self.mixture.step,))[0]

    def each(self, x: Array, shares: Array) -> Array:
        """What each of WAYS makes of photos (n, h, w, 3), if the shots have these shares of them: (w, n, h, w, 3)."""
        photo, kernels = self.mixture.denoised(x), likely(self.mixture, shares, self.likely)
        restored = self.restored(self.mixture.candidates(photo, shares))
        held, filled = (stepped(photo, candidates, kernels, STEPS) for candidates in (restored[:, :1], restored))
        return jnp.concatenate([restored[None, :, 0], held, filled])

    def restored(self, candidates: Array) -> Array:
        """What the deblurrer makes of candidates (n, c, h, w, 3): as many; one after the other, for the memory."""
        restored = jax.lax.map(partial(apply, *self.deblurrer.unbind()), jnp.moveaxis(candidates, 1, 0))
        return jnp.moveaxis(restored, 0, 1)


class Held(nn.Module):
    """A deblurrer that was adapted to the camera, its result held to the photo: (n, h, w, 3) -> (n, h, w, 3).

    mixture, likely, dtype: as in Consistent. deblurrer: the adapted one. step: how far to go from its result towards
    agreement, 0 to 1.
    """

    mixture: KernelMixture
    deblurrer: nn.Module
    step: float = 1.0
    likely: int = 40
    dtype: Any = jnp.float32

    @property
    def stride(self) -> int:
        """The deblurrer's."""
        return self.deblurrer.stride

    @property
    def margin(self) -> int:
        """As in Consistent."""
        return border(self.mixture.reach) if self.step else 0

    def __call__(self, x: Array) -> Array:
        photo = x.astype(jnp.float32)
        return self.stepped(photo, self.mixture.shares(photo), (self.step,))[0]

    def each(self, photo: Array, shares: Array) -> Array:
        """The results of no step and of each of STEPS for photos (n, h, w, 3) of these shares: (s, n, h, w, 3)."""
        return self.stepped(photo, shares, (0.0, *STEPS))

    def stepped(self, photo: Array, shares: Array, steps: Sequence[float]) -> Array:
        """The result of each of these steps for photos (n, h, w, 3) of these shares: (s, n, h, w, 3)."""
        restored = apply(*self.deblurrer.unbind(), photo)[:, None]
        kernels = likely(self.mixture, shares, self.likely)
        return stepped(self.mixture.denoised(photo), restored, kernels, steps)


def likely(mixture: KernelMixture, shares: Array, most: int) -> Array:
    """The likely kernels of photos of these shares, `most` shots of each at most: (n, m, k, k)."""
    return with_mirrored(mixture.likeliest(shares, most))


def stepped(photo: Array, candidates: Array, kernels: Array, steps: Sequence[float]) -> Array:
    """The best of candidates (n, c, h, w, 3), moved towards agreement by each of these steps: (s, n, h, w, 3)."""
    told = explained(photo, candidates, kernels)
    agreed = agreeing(photo, told)
    return jnp.stack([told.sharp + step * (agreed - told.sharp) for step in steps])


def with_mirrored(kernels: Array) -> Array:
    """Kernels (n, m, k, k) and their mirror images, which cepstra do not tell apart: (n, 2 m, k, k)."""
    return jnp.concatenate([kernels, kernels[..., ::-1, ::-1]], axis=1)


def explained(photo: Array, candidates: Array, kernels: Array) -> Explained:
    """Of candidates (n, c, h, w, 3) and kernels (n, m, k, k) the two for which the candidate, blurred, is the photo."""
    k = kernels.shape[-1]
    sides = padded_sides(photo, k)
    smooth = np.exp(-2 * np.square(np.pi * SMOOTH * radius(*sides)))

    def seen(x: Array) -> Array:
        """Spectra of photos in grey, smoothed."""
        return smooth * jnp.fft.rfft2(mirrored(x, k).mean(-1), sides)

    def inside(spectrum: Array) -> Array:
        """The photos of spectra, without what their borders reach."""
        return _inside(jnp.fft.irfft2(spectrum, sides)[..., k : k + photo.shape[1], k : k + photo.shape[2]], k)

    shown, wanted = jax.vmap(seen)(candidates), inside(seen(photo))

    def errors(kernel: Array) -> Array:
        """Mean squares (n, c) for kernels (n, k, k)."""
        blurred = inside(shown * spectra(kernel, sides)[:, None])
        return jnp.square(blurred - wanted[:, None]).mean((-2, -1))

    found = jax.lax.map(errors, jnp.moveaxis(kernels, 1, 0))  # (m, n, c)
    best = jnp.moveaxis(found, 1, 0).reshape(len(photo), -1).argmin(1)
    each, count = jnp.arange(len(photo)), candidates.shape[1]
    return Explained(candidates[each, best % count], kernels[each, best // count])


def agreeing(photo: Array, told: Explained) -> Array:
    """`told.sharp`, changed where it contradicts the photo and the kernel has not lost what the photo says."""
    k = told.kernel.shape[-1]
    sides = padded_sides(photo, k)
    kernel = spectra(told.kernel, sides)[..., None]
    (h, w), along = photo.shape[1:3], (1, 2)
    blurred = jnp.fft.irfft2(kernel * jnp.fft.rfft2(mirrored(told.sharp, k), sides, axes=along), sides, axes=along)
    # What lies outside the photo is not known: near its border there is nothing to agree with.
    weight = (_taper(h, k)[:, None] * _taper(w, k))[..., None]
    residual = jnp.fft.rfft2(weight * (blurred[:, k : k + h, k : k + w] - photo), sides, axes=along)
    kept = jnp.square(jnp.abs(kernel))
    noise, error = parts(jnp.square(jnp.abs(residual)).mean(-1, keepdims=True), kept)
    # error / (kept error + noise), so that without an error there is no change
    change = jnp.conj(kernel) * residual * error / jnp.maximum(kept * error + noise, TINY)
    return jnp.clip(told.sharp - jnp.fft.irfft2(change, sides, axes=along)[:, :h, :w], 0.0, 1.0)


def parts(power: Array, kept: Array) -> tuple[Array, Array]:
    """What a residual's power (n, p, q, 1) = kept error + noise is made of: noise and error, both (n, 1, 1, 1).

    kept: the kernel's squared spectrum. Where it is least, the residual is noise: the photo's own, and of a kernel that
    is not quite right.
    """
    whole = (1, 2, 3)
    lost = kept <= jnp.quantile(kept, LOST, axis=whole, keepdims=True)
    noise = jnp.mean(power, whole, where=lost, keepdims=True)
    error = jnp.mean((power - noise) * kept, whole, keepdims=True) / jnp.mean(kept**2, whole, keepdims=True)
    return noise, jnp.maximum(error, 0.0)


def padded_sides(photo: Array, k: int) -> tuple[int, int]:
    """Sides of the transforms of photos (n, h, w, c) with k pixels on every side."""
    return tuple(fft.next_fast_len(side + 2 * k, real=True) for side in photo.shape[1:3])


def _inside(x: Array, k: int) -> Array:
    """Photos (..., h, w) without half a kernel at each border; of tiny ones all."""
    cut = [slice(k // 2, side - k // 2) if side > 2 * k else slice(None) for side in x.shape[-2:]]
    return x[..., cut[0], cut[1]]


def border(k: int) -> int:
    """Pixels from an edge within which a residual under kernels of k pixels does not wholly count."""
    return k // 2 + k


def _taper(side: int, k: int) -> np.ndarray:
    """0 within half a kernel of either edge, 1 beyond `border`, a raised cosine between: (side,)."""
    distance = np.minimum(np.arange(side), np.arange(side)[::-1])
    return np.sin(np.pi / 2 * np.clip((distance - k // 2) / k, 0, 1)).astype(np.float32) ** 2
