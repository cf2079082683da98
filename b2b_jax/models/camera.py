"""A camera as a generator: what this camera would have made of a sharp photo, with its blur and its processing.

    z ~ N(0, I)  ->  features  ->  kernel, sharpening (amount, sigma), noise (sigma)       one `Shot` for each photo
    response: the exponent that turns stored values into light, one for the camera

    photo = clip(sharpen(((sharp ** response) * kernel) ** (1 / response))) + noise, and JPEG where a shot has it

Every part has few parameters and a meaning, so the camera cannot invent what the sharp photo does not show. Related:
KernelGAN (Bell-Kligler et al., NeurIPS 2019, arXiv 1909.06581); Zhang et al., "Deblurring by Realistic Blurring", CVPR
2020, arXiv 2004.01860. Neither constrains the generator to a camera that is shared by all photos.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from scipy import fft

from b2b_jax.models.jpeg import compressed

Array = jax.Array

HALO = 8  # pixels that sharpening reaches: 2.7 times its largest sigma
DARKEST = 1 / 512  # half a grey level: a power's slope is infinite at zero


class Shot(NamedTuple):
    """What the camera does to each of n photos; None for a part that it does not have."""

    kernel: Array | None  # (n, k, k): non-negative, of sum 1; (n, 4, k, k) where it drifts, at four corners
    amount: Array | None  # (n,): what sharpening adds of the difference from the smoothed photo
    sigma: Array | None  # (n,): of the Gaussian that smooths it, in pixels
    noise: Array | None  # (n,): standard deviation, of a range of 1
    response: Array | None  # (): stored value ** response = light
    field: Array | None = None  # (): pixels from corner to corner, about the centre of the photo, where it drifts
    quality: Array | None = None  # (): of JPEG


def taken(shot: Shot, chosen: Array) -> Shot:
    """The shots of these numbers; what all of them share stays."""
    return Shot(*(part if part is None or not part.ndim else part[chosen] for part in shot))


class Camera(nn.Module):
    """z (n, latent) -> Shot of n photos.

    latent: numbers that differ from photo to photo. width: of the two hidden layers. size: of the kernel, odd, in
    pixels. start: standard deviation in pixels of the Gaussian that the untrained kernel is. kernel, sharpening, noise,
    response: which parts the camera has.
    """

    latent: int = 8
    width: int = 64
    size: int = 21
    start: float = 3.0
    field: int = 0
    kernel: bool = True
    sharpening: bool = True
    noise: bool = True
    response: bool = False
    dtype: Any = jnp.float32  # unused: a camera is computed in float32

    @nn.compact
    def __call__(self, z: Array, train: bool = False) -> Shot:
        x = nn.leaky_relu(nn.Dense(self.width, name="features.0")(z), 0.2)
        x = nn.leaky_relu(nn.Dense(self.width, name="features.1")(x), 0.2)
        kernel = Kernel(self.size, self.start, self.field > 0, name="kernel_part")(x) if self.kernel else None
        amount, sigma = Sharpening(name="sharpening_part")(x) if self.sharpening else (None, None)
        noise = Noise(name="noise_part")(x) if self.noise else None
        response = Response(name="response_part")() if self.response else None
        drifts = self.kernel and self.field > 0
        return Shot(kernel, amount, sigma, noise, response, jnp.float32(self.field) if drifts else None)

    @property
    def input_shape(self) -> tuple[int, int]:
        """Of what one call takes."""
        return 1, self.latent

    @property
    def reach(self) -> int:
        """Pixels around a photo that its rendering needs."""
        return (self.size // 2 if self.kernel else 0) + (HALO if self.sharpening else 0)


class Kernel(nn.Module):
    """(n, c) -> kernels (n, size, size): a softmax over the pixels, at first near a Gaussian.

    With `drifts` (n, 4, size, size): the logits change in a line over the frame, and these are its corners, top left,
    top right, bottom left, bottom right.
    """

    size: int
    start: float
    drifts: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        logits = nn.Dense(self.size**2, name="logits", bias_init=lambda *_: self._gaussian().ravel())(x)
        if self.drifts:
            down, right = jnp.split(nn.Dense(2 * self.size**2, name="slopes")(x), 2, axis=-1)
            corners = [logits + 0.5 * (v * down + h * right) for v in (-1, 1) for h in (-1, 1)]
            logits = jnp.stack(corners, axis=1)
        return jax.nn.softmax(logits, axis=-1).reshape(*logits.shape[:-1], self.size, self.size)

    def _gaussian(self) -> Array:
        square = jnp.square((jnp.arange(self.size) - self.size // 2) / self.start)
        return -0.5 * (square[:, None] + square)


class Sharpening(nn.Module):
    """(n, c) -> amount (n,), at first about 0.2, and sigma (n,) between 0.6 and 3 pixels."""

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        amount, sigma = nn.Dense(2, name="values")(x).T
        return 4 * jax.nn.softplus(amount - 3), 0.6 + 2.4 * jax.nn.sigmoid(sigma)


class Noise(nn.Module):
    """(n, c) -> standard deviation (n,), at first about one grey level of 255."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return 0.2 * jax.nn.softplus(nn.Dense(1, name="values")(x)[:, 0] - 4)


class Response(nn.Module):
    """The exponent, at first 1: light as it is stored."""

    @nn.compact
    def __call__(self) -> Array:
        return jnp.exp(self.param("exponent", nn.initializers.zeros, ()))


# ------------------------------------------------------------------------------------------------------------ rendering


def render(sharp: Array, shot: Shot, key: Array) -> Array:
    """The photos that the camera makes of `sharp`, before they are stored; differentiable in the shot.

    Args:
        sharp: (n, h, w, 3) in [0, 1], larger than what is wanted by the camera's `reach` on every side.
        shot: of n photos.
        key: of the noise.

    Returns:
        float32 (n, h - 2 reach, w - 2 reach, 3); noise may leave [0, 1].
    """
    lens = [] if shot.kernel is None else [shot.kernel]
    processing = [] if shot.amount is None else [sharpener(shot.amount, shot.sigma)]
    sides = tuple(fft.next_fast_len(side, real=True) for side in sharp.shape[1:3])
    if shot.response is None and shot.field is None:
        x = filtered(sharp, [*lens, *processing], sides)
    elif shot.response is None:
        x = filtered(blended(sharp, shot, sides), processing, sides)
    else:  # only the lens sees light; what the camera sharpens is stored values
        light = jnp.maximum(sharp, DARKEST) ** shot.response
        light = filtered(light, lens, sides) if shot.field is None else blended(light, shot, sides)
        x = filtered(jnp.maximum(light, 1e-6) ** (1 / shot.response), processing, sides)
    # No kernel is moved to the origin: what is whole lies below and right of all their reach.
    above = sum(kernel.shape[-1] - 1 for kernel in (*lens, *processing))
    x = jnp.clip(x[:, above : sharp.shape[1], above : sharp.shape[2]], 0.0, 1.0)
    if shot.noise is not None:
        x = x + shot.noise[:, None, None, None] * jax.random.normal(key, x.shape)
    return x


def photographed(sharp: Array, shot: Shot, key: Array) -> Array:
    """What the camera stores of `sharp`: as `render`, rounded to 8 bits, in [0, 1], and compressed."""
    photo = jnp.round(jnp.clip(render(sharp, shot, key), 0, 1) * 255) / 255
    return photo if shot.quality is None else compressed(photo, shot.quality)


def filtered(x: Array, kernels: Sequence[Array], sides: tuple[int, int]) -> Array:
    """Photos (n, h, w, c) convolved with each of the `kernels` (n, k, k), periodic with `sides`, moved by k // 2.

    By FFT: a convolution with a kernel for each photo is a slow one on every device. It is cut by the caller, once: of
    the gradient of two nested cuts XLA's CPU compiler (JAX 0.10) makes a program that reads out of bounds.
    """
    if not kernels:
        return x
    spectrum = jnp.fft.rfft2(x, sides, axes=(1, 2))
    for kernel in kernels:
        spectrum = spectrum * jnp.fft.rfft2(kernel, sides)[..., None]
    return jnp.fft.irfft2(spectrum, sides, axes=(1, 2))


def spectra(kernels: Array, sides: tuple[int, int]) -> Array:
    """Spectra (n, p, q // 2 + 1) of kernels (n, k, k) whose centre is the origin; `sides` are (p, q)."""
    k, centre = kernels.shape[-1], kernels.shape[-1] // 2
    padded = jnp.pad(kernels, ((0, 0), *((0, side - k) for side in sides)))
    return jnp.fft.rfft2(jnp.roll(padded, (-centre, -centre), axis=(1, 2)))


def blended(x: Array, shot: Shot, sides: tuple[int, int]) -> Array:
    """`filtered` by a kernel that drifts: by those of the corners, shared between them in lines over the frame.

    A frame larger than the field drifts as much, over all of it.
    """
    middle = shot.kernel.shape[-1] // 2
    down, right = (
        jnp.clip((jnp.arange(padded) - middle - (side - 1) / 2) / jnp.maximum(shot.field, side) + 0.5, 0, 1)
        for padded, side in zip(sides, x.shape[1:3], strict=True)
    )
    shares = [v[:, None] * h for v in (1 - down, down) for h in (1 - right, right)]
    spectrum = jnp.fft.rfft2(x, sides, axes=(1, 2))
    return sum(
        share[..., None] * jnp.fft.irfft2(spectrum * jnp.fft.rfft2(kernel, sides)[..., None], sides, axes=(1, 2))
        for share, kernel in zip(shares, jnp.moveaxis(shot.kernel, 1, 0), strict=True)
    )


def sharpener(amount: Array, sigma: Array) -> Array:
    """Unsharp masks (n,) as kernels (n, k, k): (1 + amount) times the pixel, minus amount times a Gaussian."""
    along = jnp.arange(-HALO, HALO + 1)
    profile = jnp.exp(-0.5 * jnp.square(along / sigma[:, None]))
    profile = profile / profile.sum(-1, keepdims=True)
    smooth = profile[:, :, None] * profile[:, None]
    pixel = (along[:, None] == 0) & (along == 0)
    return pixel + amount[:, None, None] * (pixel - smooth)
