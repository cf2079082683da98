"""The forms of a convolution's gradients that a GPU runs faster than JAX's own.

Arrays are NHWC, kernels (kh, kw, in, out). docs/benchmarks.md has the times.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from b2b_jax.models.convolution_cpu import DIMENSIONS, Form, Geometry, Shape

NARROW = 32  # channels of which two pixels fill the matrix units better than one, measured in bfloat16; with 64 no more


def over_kernel(x: jax.Array, kernel: Shape, geometry: Geometry) -> Form:
    """Of (x, g) -> dk, the gradient over a kernel of this shape from images like x; None stands for JAX's own."""
    plain = geometry.stride == geometry.groups == 1 and geometry.padding == (1, 1) and kernel == (3, 3, NARROW, NARROW)
    fits = x.dtype == jnp.bfloat16 and x.shape[2] % 2 == 0
    return functools.partial(over_kernel_by_pixel_pairs, precision=geometry.precision) if plain and fits else None


def over_kernel_by_pixel_pairs(x: jax.Array, g: jax.Array, precision: str | None = None) -> jax.Array:
    """A 3x3 kernel's gradient at padding 1, with two neighbours of a row as one pixel of twice the channels.

    They lie side by side in memory, so nothing is moved. The wider kernel's taps reach from two pixels before a pair to
    two behind it; those of the narrow one are found in it once for each pixel of the pair, and added. In bfloat16 both
    are rounded before.
    """
    (n, h, w, inputs), out = x.shape, g.shape[-1]
    pairs = x.reshape(n, h, w // 2, 2 * inputs)

    def wide(kernel: jax.Array) -> jax.Array:
        pads = [(1, 1), (1, 1)]
        return lax.conv_general_dilated(pairs, kernel, (1, 1), pads, dimension_numbers=DIMENSIONS, precision=precision)

    kernel = jax.ShapeDtypeStruct((3, 3, 2 * inputs, 2 * out), x.dtype)
    (gradient,) = jax.linear_transpose(wide, kernel)(g.reshape(n, h, w // 2, 2 * out))
    taps = gradient.reshape(3, 6, inputs, 2, out)
    return taps[:, 1:4, :, 0] + taps[:, 2:5, :, 1]
