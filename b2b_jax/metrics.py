"""PSNR and SSIM in the variants that published deblurring tables report, each under a name of its own.

SSIM: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity",
IEEE TIP 2004. Never compare one variant with another:

    ssim            11x11 Gaussian, per channel, valid part: BasicSR, MATLAB, Restormer's tables
    ssim_y          the same on luma
    ssim_3d         11x11x11 Gaussian that mixes the colour channels, much higher: scripts of NAFNet and Blur2Blur
    ssim_uniform    uniform 7x7 window and sample covariance: scikit-image's default

Images are NHWC in [0, 1]; scores are float32 (n,), one per image. All is jitted, once per shape.
Tables are scored on images of 8 bits: pass network outputs through `round8` first.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from b2b_jax.levels import luma

_K = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
WINDOW = tuple((_K / _K.sum()).tolist())  # 11 taps, sigma 1.5 (Wang et al., section III.C)
UNIFORM = (1 / 7,) * 7  # scikit-image's
C1, C2 = 0.01**2, 0.03**2  # Wang et al., section III.B, with L = 1
EQUAL = 1e-14  # squared error below which 8-bit images are the same: a division by 255 is not rounded alike everywhere
HIGHEST = 100.0  # dB: what an equal image counts where a mean chooses or is plotted


def round8(x: jax.Array) -> jax.Array:
    """Clips to [0, 1] and quantises to the 256 levels of an 8-bit file; halves round to even."""
    return jnp.round(jnp.clip(x, 0, 1) * 255) / 255


@partial(jax.jit, static_argnames="crop_border")
def psnr(x: jax.Array, y: jax.Array, crop_border: int = 0) -> jax.Array:
    """Peak signal-to-noise ratio over all channels, peak 1.

    Args:
      x: images (n, h, w, c) in [0, 1].
      y: images of the same shape.
      crop_border: pixels left out at each of the four borders.

    Returns:
      float32 (n,), in dB; infinite for equal images.

    Raises:
      ValueError: the shapes differ, are not NHWC, or nothing is left of the images.
    """
    x, y = _pair(x, y, crop_border)
    return _decibels(jnp.mean((x - y) ** 2, axis=(1, 2, 3)))


def mean_psnr(x: jax.Array, y: jax.Array) -> float:
    """Mean `psnr` of images (n, h, w, c), rounded to 8 bits, of which equal ones count HIGHEST."""
    return float(jnp.mean(jnp.minimum(psnr(round8(x), y), HIGHEST)))


@partial(jax.jit, static_argnames="crop_border")
def psnr_y(x: jax.Array, y: jax.Array, crop_border: int = 0) -> jax.Array:
    """`psnr` of the luma (BT.601, studio range, not rounded) of RGB images (n, h, w, 3)."""
    return psnr(luma(x)[..., None], luma(y)[..., None], crop_border)


@jax.jit
def psnr_masked(x: jax.Array, y: jax.Array, mask: jax.Array) -> jax.Array:
    """`psnr` over the pixels where `mask` (n, h, w, 1) is 1, as RealBlur scores what an alignment left."""
    x, y = _pair(x, y, 0)
    error = jnp.sum(mask * (x - y) ** 2, axis=(1, 2, 3)) / (x.shape[-1] * jnp.sum(mask, axis=(1, 2, 3)))
    return _decibels(error)


@partial(jax.jit, static_argnames="crop_border")
def ssim(x: jax.Array, y: jax.Array, crop_border: int = 0) -> jax.Array:
    """Structural similarity per channel, averaged over channels and the windows that lie inside the image.

    Args:
      x: images (n, h, w, c) in [0, 1]; after the crop at least 11 x 11.
      y: images of the same shape.
      crop_border: pixels left out at each of the four borders.

    Returns:
      float32 (n,), at most 1.

    Raises:
      ValueError: as for `psnr`, or the images are smaller than the window.
    """
    return jnp.mean(_ssim_map(x, y, crop_border, WINDOW), axis=(1, 2, 3))


@partial(jax.jit, static_argnames="crop_border")
def ssim_y(x: jax.Array, y: jax.Array, crop_border: int = 0) -> jax.Array:
    """`ssim` of the luma of RGB images (n, h, w, 3)."""
    return ssim(luma(x)[..., None], luma(y)[..., None], crop_border)


@partial(jax.jit, static_argnames="crop_border")
def ssim_uniform(x: jax.Array, y: jax.Array, crop_border: int = 0) -> jax.Array:
    """scikit-image's `structural_similarity` as it comes: uniform 7 x 7 window, sample covariance, per channel.

    Args, returns, raises: as for `ssim`, the window being 7 x 7.
    """
    return jnp.mean(_ssim_map(x, y, crop_border, UNIFORM, correction=49 / 48), axis=(1, 2, 3))


@jax.jit
def ssim_masked(x: jax.Array, y: jax.Array, mask: jax.Array) -> jax.Array:
    """`ssim` over the windows whose centre has `mask` (n, h, w, 1) 1, as RealBlur scores what an alignment left.

    As in its script, both images are 0 outside the mask, where windows near its border reach.
    """
    similar, inside = _ssim_map(mask * x, mask * y, 0, WINDOW), jnp.moveaxis(mask, -1, 1)[:, :, 5:-5, 5:-5]
    return jnp.sum(inside * similar, axis=(1, 2, 3)) / (x.shape[-1] * jnp.sum(inside, axis=(1, 2, 3)))


@partial(jax.jit, static_argnames="crop_border")
def ssim_3d(x: jax.Array, y: jax.Array, crop_border: int = 0) -> jax.Array:
    """The SSIM of the NAFNet, Restormer and Blur2Blur scripts: the image is a volume h x w x 3.

    The window is 11 x 11 x 11, replicated borders extend all three axes, and the mean is over the whole map.

    Args, returns, raises: as for `psnr`.
    """
    x, y = _pair(x, y, crop_border)
    maps = _moments(x, y)
    for axis in (2, 3, 4):
        pads = [(5, 5) if i == axis else (0, 0) for i in range(maps.ndim)]
        maps = _blur(jnp.pad(maps, pads, mode="edge"), axis, WINDOW)
    return jnp.mean(_similarity(maps), axis=(1, 2, 3))


def _decibels(error: jax.Array) -> jax.Array:
    """PSNR of mean squared errors (n,)."""
    return -10 * jnp.log10(jnp.where(error < EQUAL, 0.0, error))


def _pair(x: jax.Array, y: jax.Array, crop_border: int, smallest: int = 1) -> tuple[jax.Array, jax.Array]:
    """Both batches in float32 without their borders, or a ValueError."""
    if x.ndim != 4 or x.shape != y.shape:
        raise ValueError(f"got shapes {x.shape} and {y.shape}, wanted two equal (n, h, w, c)")
    if crop_border < 0 or min(x.shape[1:3]) - 2 * crop_border < smallest:
        raise ValueError(f"images of {x.shape[1:3]} less a border of {crop_border} are under {smallest} pixels wide")
    h, w = x.shape[1] - crop_border, x.shape[2] - crop_border
    inside = (slice(None), slice(crop_border, h), slice(crop_border, w))
    return x[inside].astype(jnp.float32), y[inside].astype(jnp.float32)


def _moments(x: jax.Array, y: jax.Array) -> jax.Array:
    """(5, n, c, h, w): what is averaged under the window.

    Centred, so that the variances keep float32's digits; planar, so that the inner loop on CPU is long.
    """
    x, y = (jnp.moveaxis(image, -1, 1) - 0.5 for image in (x, y))
    return jnp.stack([x, y, x * x, y * y, x * y])


def _ssim_map(x: jax.Array, y: jax.Array, crop_border: int, window: tuple, correction: float = 1.0) -> jax.Array:
    """(n, c, h', w'): the similarity of the windows inside the image. `correction` makes covariances unbiased."""
    x, y = _pair(x, y, crop_border, smallest=len(window))
    return _similarity(_blur(_blur(_moments(x, y), 3, window), 4, window), correction)


def _blur(maps: jax.Array, axis: int, window: tuple) -> jax.Array:
    """The window along one axis, valid part, as shifted sums.

    Far faster on CPU than a depthwise convolution, and exact on accelerators, where one would round to TF32.
    """
    size = maps.shape[axis] - len(window) + 1
    return sum(k * jax.lax.slice_in_dim(maps, i, i + size, axis=axis) for i, k in enumerate(window))


def _similarity(maps: jax.Array, correction: float = 1.0) -> jax.Array:
    """Equation 13 of Wang et al. from the five averages."""
    x, y, xx, yy, xy = maps
    mx, my = x + 0.5, y + 0.5
    structure = (2 * correction * (xy - x * y) + C2) / (correction * (xx - x * x + yy - y * y) + C2)
    luminance = (2 * mx * my + C1) / (mx * mx + my * my + C1)
    return luminance * structure
