"""What JPEG makes of photos, on the device: the last thing that a camera does.

Luma, and chroma at half the resolution, are cut into blocks of 8×8 pixels, whose cosine transforms are rounded. Colours
and transform are those of ITU-T T.871 and T.81, the steps those of libjpeg's `quality`. It has no useful gradient.
Images are NHWC float32 in [0, 1].
"""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from scipy import fft

from b2b_jax.models.layers import cells

Array = jax.Array

BLOCK = 8
TIE = 1e-3  # by which a half may be missed in float32
EXACT = jax.lax.Precision.HIGHEST  # accelerators would round the factors, and halves would be missed by more
TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
TO_RGB = np.linalg.inv(TO_YCC)


def compressed(photo: Array, quality: Array) -> Array:
    """Photos (n, h, w, 3) after JPEG of a `quality` () from 1 to 100, rounded to 8 bits again."""
    (h, w), whole = photo.shape[1:3], 2 * BLOCK
    padded = jnp.pad(photo, ((0, 0), (0, -h % whole), (0, -w % whole), (0, 0)), mode="edge")
    ycc = jnp.round(product(255 * padded, TO_YCC))  # whole numbers, as libjpeg has them throughout
    luma, chroma = steps(quality)
    y = rounded(ycc[..., :1] - 128, luma) + 128
    c = jax.image.resize(rounded(halved(ycc[..., 1:]), chroma), (*y.shape[:3], 2), "linear")  # as libjpeg enlarges it
    rgb = product(jnp.concatenate([y, c], axis=-1)[:, :h, :w], TO_RGB)
    return jnp.round(jnp.clip(rgb, 0, 255)) / 255


def product(colours: Array, matrix: np.ndarray) -> Array:
    """Colours (..., 3) times a matrix (3, 3), in float32 on every device."""
    return jnp.matmul(colours, matrix.T.astype(np.float32), precision=EXACT)


def halved(x: Array) -> Array:
    """Means of 2×2 whole numbers (n, h, w, c), halves rounded down and up in turn, from column to column."""
    means = cells(x, 2).mean((2, 4))
    return jnp.floor(means + (1 + np.arange(means.shape[2], dtype=np.float32)[:, None] % 2) / 4)


def rounded(x: Array, step: Array) -> Array:
    """x (n, h, w, c), of whole blocks, with each of their frequencies rounded to a multiple of its step (8, 8).

    Results are whole numbers from -128 to 127. Halves go where libjpeg rounds them: of frequencies away from zero, of
    pixels up. Flat blocks often fall on a half; rounding to even would tint them.
    """
    dct = cosines()
    spectrum = jnp.einsum("nhiwjc,ui,vj->nhwcuv", cells(x, BLOCK), dct, dct, precision=EXACT)
    spectrum = jnp.sign(spectrum) * jnp.floor(jnp.abs(spectrum) / step + 0.5 + TIE) * step
    pixels = jnp.einsum("nhwcuv,ui,vj->nhiwjc", spectrum, dct, dct, precision=EXACT).reshape(x.shape)
    return jnp.clip(jnp.floor(pixels + 0.5 + TIE), -128, 127)


def steps(quality: Array | float) -> tuple[Array, Array]:
    """The steps of luma and chroma, (8, 8) each, as libjpeg scales them."""
    scale = jnp.where(quality < 50, jnp.floor(5000 / jnp.maximum(quality, 1)), 200 - 2 * quality)
    return tuple(jnp.clip(jnp.floor((table * scale + 50) / 100), 1, 255) for table in unscaled())


@functools.cache
def cosines() -> np.ndarray:
    """The transform of a block's rows or columns: (frequencies, pixels). SciPy's first transform starts a thread."""
    return fft.dct(np.eye(BLOCK), axis=0, norm="ortho").astype(np.float32)


@functools.cache
def unscaled() -> tuple[np.ndarray, np.ndarray]:
    """The steps of quality 50, which libjpeg leaves as the standard's Annex K has them."""
    file = io.BytesIO()
    Image.new("RGB", (BLOCK, BLOCK)).save(file, "JPEG", quality=50)
    tables = Image.open(file).quantization
    return tuple(np.array(tables[i], np.float32).reshape(BLOCK, BLOCK) for i in (0, 1))
