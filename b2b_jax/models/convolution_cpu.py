"""The forms of a convolution and of its gradients that XLA's CPU runs fastest, equal in value to JAX's own.

Arrays are NHWC, kernels (kh, kw, in, out). `convolution.convolve` and its gradients ask here, for one geometry, for a
function to use on a CPU; None stands for JAX's own. docs/benchmarks.md has the times.
"""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
STRIPS = 8  # parts of a batch, in the gradient of a depthwise kernel
FEW = 12  # channels out, up to which `image_over_gradient` pays: a photo has 3, one behind a pixel-unshuffle 12

Shape = tuple[int, ...]
Form = Callable[[jax.Array, jax.Array], jax.Array] | None


class Geometry(NamedTuple):
    """What a convolution is besides its arrays."""

    stride: int = 1
    padding: tuple[int, int] = (0, 0)  # pixels on each side, vertical and horizontal
    groups: int = 1
    precision: str | None = None


def forward(kernel: Shape, geometry: Geometry) -> Form:
    """Of (x, kernel) -> y."""
    return functools.partial(neighbours, geometry=geometry) if _is_shallow(kernel, geometry) else None


def over_image(x: Shape, kernel: Shape, geometry: Geometry) -> Form:
    """Of (g, kernel) -> dx, the gradient over an image of shape x."""
    if geometry.groups > 1:
        return None
    kh, kw, inputs, out = kernel
    rest = geometry._replace(padding=(kh - 1 - geometry.padding[0], kw - 1 - geometry.padding[1]))
    if _is_shallow((kh, kw, out, inputs), rest):
        return lambda g, kernel: neighbours(g, _turned(kernel), rest)
    return functools.partial(_over_image_in_order, shape=x, geometry=geometry)


def over_kernel(kernel: Shape, geometry: Geometry) -> Form:
    """Of (x, g) -> dk, the gradient over a kernel of this shape."""
    if geometry.groups > 1:
        return None
    size, inputs, out = kernel[:2], *kernel[2:]
    if geometry.stride == 1 and size == (3, 3) and 1 < out < min(inputs, FEW + 1):
        return functools.partial(image_over_gradient, geometry=geometry)
    if geometry.stride == 1 and size == (2, 2) and geometry.padding == (1, 1):
        return functools.partial(patch_product, precision=geometry.precision)
    return functools.partial(_over_kernel_in_order, size=size, geometry=geometry)


def _is_shallow(kernel: Shape, geometry: Geometry) -> bool:
    plain = geometry.stride == geometry.groups == 1 and kernel[:2] == (3, 3)
    return plain and kernel[2] <= 16 and 1 < kernel[3] <= 8


def neighbours(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """A 3x3 convolution of few channels with 2 or 4 neighbouring pixels as channels of one: more products, less time.

    With so few channels a CPU's matrix products are mostly overhead.
    """
    (ph, pw), count, out = geometry.padding, 4 if kernel.shape[3] <= 4 else 2, kernel.shape[3]
    width = x.shape[2] + 2 * pw - 2
    lacking = -width % count
    shifted = [jnp.pad(kernel, ((0, 0), (i, count - 1 - i), (0, 0), (0, 0))) for i in range(count)]
    wide = jnp.stack(shifted, axis=3).reshape(3, count + 2, kernel.shape[2], count * out)
    y = _convolve(x, wide, ((ph, ph), (pw, pw + lacking)), geometry, window_strides=(1, count))
    return y.reshape(*y.shape[:2], width + lacking, out)[:, :, :width]


def image_over_gradient(x: jax.Array, g: jax.Array, geometry: Geometry) -> jax.Array:
    """A 3x3 kernel's gradient, dk[i, j, c, o] = Σ x[n, p + i, q + j, c] g[n, p, q, o], with x sliding over g.

    JAX lets g slide over x. XLA's matrix product has the channels of what slides as its columns: where g has few, this
    is up to 30 times as fast.
    """
    pads = [(2 - p, 2 - p) for p in geometry.padding]
    return _turned(_convolve(g, x, pads, geometry, dimension_numbers=("CHWN", "IHWO", "HWNC")))


def patch_product(x: jax.Array, g: jax.Array, precision: str | None = None) -> jax.Array:
    """A 2x2 kernel's gradient at padding 1, dk[i, j, c, o] = Σ x[n, p + i - 1, q + j - 1, c] g[n, p, q, o].

    As one matrix product, ten times as fast as XLA's convolution of x by a kernel as large as g.
    """
    (h, w), c = g.shape[1:3], x.shape[-1]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = jnp.concatenate([padded[:, i : i + h, j : j + w] for i in (0, 1) for j in (0, 1)], axis=-1)
    product = jnp.matmul(patches.reshape(-1, 4 * c).T, g.reshape(-1, g.shape[-1]), precision=precision)
    return product.reshape(2, 2, c, g.shape[-1])


# XLA reorders the axes of a convolution only outside of conditions and loops. Inside, where the gradient penalty is,
# any order but DIMENSIONS takes up to ten times as long.


def _over_image_in_order(g: jax.Array, kernel: jax.Array, shape: Shape, geometry: Geometry) -> jax.Array:
    stride, sizes = geometry.stride, zip(shape[1:], g.shape[1:], kernel.shape, geometry.padding, strict=False)
    pads = [(k - 1 - p, size + p - stride * (out - 1) - 1) for size, out, k, p in sizes]
    return _convolve(g, _turned(kernel), pads, geometry, lhs_dilation=(stride, stride))


def _over_kernel_in_order(x: jax.Array, g: jax.Array, size: tuple[int, int], geometry: Geometry) -> jax.Array:
    stride, sizes = geometry.stride, zip(x.shape[1:], g.shape[1:], size, geometry.padding, strict=False)
    pads = [(p, k + stride * (out - 1) - side - p) for side, out, k, p in sizes]
    x, g = x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)
    return _convolve(x, g, pads, geometry, rhs_dilation=(stride, stride)).transpose(1, 2, 0, 3)


def _turned(kernel: jax.Array) -> jax.Array:
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _convolve(x: jax.Array, kernel: jax.Array, pads: list, geometry: Geometry, **options) -> jax.Array:
    options = {"window_strides": (1, 1), "dimension_numbers": DIMENSIONS} | options
    return lax.conv_general_dilated(x, kernel, padding=pads, precision=geometry.precision, **options)


# ---- depthwise and 1x1 convolutions ----


@jax.custom_vjp
def depthwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Depthwise convolution of odd size that keeps the image's: x (n, h, w, c), kernel (kh, kw, 1, c).

    A sum of shifted products in float32: XLA's grouped convolution is 25 times slower on a CPU.
    """
    taps, (h, w) = kernel[:, :, 0].astype(jnp.float32), x.shape[1:3]
    padded, offsets = _padded(x, kernel.shape), _offsets(kernel.shape)
    return sum(padded[:, i : i + h, j : j + w] * taps[i, j] for i, j in offsets).astype(x.dtype)


def _offsets(kernel: Shape) -> list[tuple[int, int]]:
    """Row and column of each tap in the kernel, by which its view of the padded image is shifted."""
    return list(itertools.product(range(kernel[0]), range(kernel[1])))


def _padded(x: jax.Array, kernel: Shape, below: int = 0) -> jax.Array:
    """x with zeros around it as far as the kernel reaches, and `below` more rows of them at the bottom."""
    kh, kw = kernel[:2]
    return jnp.pad(x, ((0, 0), (kh // 2, kh // 2 + below), (kw // 2, kw // 2), (0, 0)))


def _depthwise_backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    # By hand: the derivative of the sum above is one padded image per tap, nine times the memory traffic of this. The
    # barriers keep XLA from computing g, or dx, anew in every fusion that reads it.
    x, kernel = saved
    g = lax.optimization_barrier(g)
    dx = depthwise(g, kernel[::-1, ::-1])
    dk = _depthwise_over_kernel(x, g, kernel.shape)
    return lax.optimization_barrier(dx), dk.reshape(kernel.shape).astype(kernel.dtype)


@functools.partial(jax.jit, static_argnames="kernel")  # layers of one shape are traced once
def _depthwise_over_kernel(x: jax.Array, g: jax.Array, kernel: Shape) -> jax.Array:
    """A depthwise kernel's gradient, dk[i, j, c] = Σ x[n, p + i, q + j, c] g[n, p, q, c], as (kh · kw, c) in float32.

    Products are added up over `STRIPS` equal parts of the batch, pixel by pixel, and then over the pixels: in one loop.
    For a plain sum XLA writes every shifted image to memory, which takes twice as long.
    """
    n, h, w, _ = g.shape
    groups = max(count for count in range(1, STRIPS + 1) if n % count == 0)  # of images
    rows = -(-h // -(-STRIPS // groups))  # of a strip
    below = -h % rows
    x, g = _padded(x, kernel, below).astype(jnp.float32), jnp.pad(g, ((0, 0), (0, below), (0, 0), (0, 0)))

    def part(z: jax.Array, strip: tuple[int, int], i: int = 0, j: int = 0) -> jax.Array:
        return z[strip[0] : strip[0] + n // groups, strip[1] + i : strip[1] + i + rows, j : j + w]

    strips = list(itertools.product(range(0, n, n // groups), range(0, h, rows)))
    products = [sum(part(x, strip, i, j) * part(g, strip) for strip in strips) for i, j in _offsets(kernel)]
    return jnp.stack(products).sum((1, 2, 3))


depthwise.defvjp(lambda x, kernel: (depthwise(x, kernel), (x, kernel)), _depthwise_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def pointwise(x: jax.Array, kernel: jax.Array, precision: str | None) -> jax.Array:
    """1x1 convolution: x (n, h, w, in), kernel (in, out). On a CPU a product is twice as fast as XLA's convolution."""
    return jnp.matmul(x, kernel, precision=precision)


def _pointwise_backward(
    precision: str | None, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # On a CPU the kernel's gradient starts with a transposed copy, into which XLA would fuse all that made x and g.
    (x, kernel), g = saved, lax.optimization_barrier(g)
    x, product = lax.optimization_barrier(x), functools.partial(jnp.matmul, precision=precision)
    dk = product(g.reshape(-1, g.shape[-1]).T, x.reshape(-1, x.shape[-1])).T
    return lax.optimization_barrier(product(g, kernel.T)), dk


pointwise.defvjp(lambda x, kernel, precision: (pointwise(x, kernel, precision), (x, kernel)), _pointwise_backward)
