"""The forms of a convolution's gradients that a GPU runs faster than JAX's own, equal in value to them.

Arrays are NHWC, kernels (kh, kw, in, out). docs/benchmarks.md has the times.
"""

import functools

import jax
from jax import lax

from b2b_jax.models.convolution_cpu import DIMENSIONS, Form, Geometry, Shape

NARROW = range(16, 33)  # channels of which two pixels together fill a GPU's matrix units better than one


def over_kernel(x: Shape, kernel: Shape, geometry: Geometry) -> Form:
    """Of (x, g) -> dk, the gradient over a kernel of this shape from images of shape x; None stands for JAX's own."""
    plain = geometry.stride == geometry.groups == 1 and geometry.padding == (1, 1) and kernel[:2] == (3, 3)
    narrow = all(channels in NARROW for channels in kernel[2:])
    return functools.partial(paired, precision=geometry.precision) if plain and narrow and x[2] % 2 == 0 else None


def paired(x: jax.Array, g: jax.Array, precision: str | None = None) -> jax.Array:
    """A 3x3 kernel's gradient at padding 1, with two neighbours of a row as one pixel of twice the channels.

    They lie side by side in memory, so nothing is moved. The wider kernel's taps reach from two pixels before a pair to
    two behind it; those of the narrow one are found in it once for each pixel of the pair, and added.
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
