"""PSNR and SSIM as published deblurring tables report them.

SSIM: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity",
IEEE TIP 2004. `ssim` is the usual one (BasicSR, MATLAB); `ssim_3d` is what the evaluation scripts of NAFNet, Restormer
and Blur2Blur compute: it mixes the colour channels and gives much higher numbers. Never compare one with the other.

Images are NHWC in [0, 1]; scores are float32 (n,), one per image. All is jitted, once per shape.
Tables are scored on images of 8 bits: pass network outputs through `round8` first.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from b2b_jax.images import luma

_K = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
WINDOW = tuple((_K / _K.sum()).tolist())  # 11 taps, sigma 1.5 (Wang et al., section III.C)
C1, C2 = 0.01**2, 0.03**2  # Wang et al., section III.B, with L = 1


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
    return -10 * jnp.log10(jnp.mean((x - y) ** 2, axis=(1, 2, 3)))


@partial(jax.jit, static_argnames="crop_border")
def psnr_y(x: jax.Array, y: jax.Array, crop_border: int = 0) -> jax.Array:
    """`psnr` of the luma (BT.601, studio range, not rounded) of RGB images (n, h, w, 3)."""
    return psnr(luma(x)[..., None], luma(y)[..., None], crop_border)


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
    x, y = _pair(x, y, crop_border, smallest=len(WINDOW))
    return _similarity(_blur(_blur(_moments(x, y), 3), 4))


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
        maps = _blur(jnp.pad(maps, pads, mode="edge"), axis)
    return _similarity(maps)


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


def _blur(maps: jax.Array, axis: int) -> jax.Array:
    """The Gaussian window along one axis, valid part, as 11 shifted sums.

    Far faster on CPU than a depthwise convolution, and exact on accelerators, where one would round to TF32.
    """
    size = maps.shape[axis] - len(WINDOW) + 1
    return sum(k * jax.lax.slice_in_dim(maps, i, i + size, axis=axis) for i, k in enumerate(WINDOW))


def _similarity(maps: jax.Array) -> jax.Array:
    """Equation 13 of Wang et al. from the five averages, then the mean over each image."""
    x, y, xx, yy, xy = maps
    mx, my = x + 0.5, y + 0.5
    structure = (2 * (xy - x * y) + C2) / (xx - x * x + yy - y * y + C2)
    luminance = (2 * mx * my + C1) / (mx * mx + my * my + C1)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))
