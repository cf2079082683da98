"""Convolutions with PyTorch's geometry, in the forms that compile to fast programs on CPU, GPU and TPU.

Arrays are NHWC, kernels (kh, kw, in, out). Every convolution of the package comes through `conv` or `conv_transpose`.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from b2b_jax.models import convolution_cpu
from b2b_jax.models.convolution_cpu import DIMENSIONS, Form, Geometry


@functools.partial(jax.jit, static_argnames=("stride", "padding", "groups"))  # layers of one shape are traced once
def conv(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int | tuple[int, int] = 0, groups: int = 1
) -> jax.Array:
    """Convolution with PyTorch's symmetric zero padding, also at stride 2, where XLA's 'SAME' pads otherwise.

    x: (n, h, w, in); kernel: (kh, kw, in / groups, out); padding: pixels on each side, one number or (vertical,
    horizontal). Returns (n, (h + 2 padding - kh) // stride + 1, ..., out).
    """
    ph, pw = (padding, padding) if isinstance(padding, int) else padding
    kh, kw = kernel.shape[:2]
    if stride == 1 and groups == x.shape[-1] == kernel.shape[-1] > 1 and (kh, kw) == (2 * ph + 1, 2 * pw + 1):
        return depthwise(x, kernel)
    # The precision is that of the caller. JAX derives the gradients later, when what the caller had set is gone.
    precision = jax.config.jax_default_matmul_precision
    if stride == 1 and groups == 1 and (kh, kw) == (1, 1) and ph == pw == 0:
        return pointwise(x, kernel[0, 0], precision)
    return convolve(x, kernel, Geometry(stride, (ph, pw), groups, precision))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """A convolution of any geometry whose gradients can be derived again, as a gradient penalty does, at low cost."""
    form = convolution_cpu.forward(kernel.shape, geometry)
    return _run(form, functools.partial(_by_jax, geometry=geometry), x, kernel)


def _by_jax(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    stride, padding, groups, precision = geometry
    options = {"dimension_numbers": DIMENSIONS, "feature_group_count": groups, "precision": precision}
    return lax.conv_general_dilated(x, kernel, (stride, stride), [(p, p) for p in padding], **options)


def _run(cpu: Form, default: Form, *arrays: jax.Array) -> jax.Array:
    return lax.platform_dependent(*arrays, cpu=cpu, default=default) if cpu else default(*arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def over_image(g: jax.Array, kernel: jax.Array, shape: tuple[int, ...], geometry: Geometry) -> jax.Array:
    """The gradient over an image of this shape, Σ over_image(g, kernel) x = Σ g convolve(x, kernel) for every x.

    Hence its own gradients are a convolution and a kernel's gradient again. JAX would derive the latter from a
    convolution of g with zeros between its pixels: at stride 2 that is seven times slower on a CPU.
    """

    def by_jax(g: jax.Array, kernel: jax.Array) -> jax.Array:
        image = jax.ShapeDtypeStruct(shape, g.dtype)
        return jax.linear_transpose(lambda x: _by_jax(x, kernel, geometry), image)(g)[0]

    return _run(convolution_cpu.over_image(shape, kernel.shape, geometry), by_jax, g, kernel)


def _over_kernel(x: jax.Array, g: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    def by_jax(x: jax.Array, g: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda kernel: _by_jax(x, kernel, geometry), kernel)(g)[0]

    return _run(convolution_cpu.over_kernel(kernel.shape, geometry), by_jax, x, g)


def _convolve_backward(
    geometry: Geometry, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    return over_image(g, kernel, x.shape, geometry), _over_kernel(x, g, kernel, geometry)


def _over_image_backward(
    shape: tuple[int, ...], geometry: Geometry, saved: tuple[jax.Array, jax.Array], dx: jax.Array
) -> tuple[jax.Array, jax.Array]:
    g, kernel = saved
    return convolve(dx, kernel, geometry), _over_kernel(dx, g, kernel, geometry)


convolve.defvjp(lambda x, kernel, geometry: (convolve(x, kernel, geometry), (x, kernel)), _convolve_backward)
over_image.defvjp(lambda g, kernel, *static: (over_image(g, kernel, *static), (g, kernel)), _over_image_backward)


@jax.custom_vjp
def depthwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Depthwise convolution of odd size that keeps the image's: x (n, h, w, c), kernel (kh, kw, 1, c).

    A sum of shifted products in float32: XLA's grouped convolution is 25 times slower on a CPU.
    """
    taps = kernel[:, :, 0].astype(jnp.float32)
    return sum(shifted * taps[i, j] for i, j, shifted in _shifts(x, kernel)).astype(x.dtype)


def _shifts(x: jax.Array, kernel: jax.Array):
    """Yields each tap's row and column in the kernel, and the zero-padded image as that tap sees it."""
    (kh, kw), (h, w) = kernel.shape[:2], x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    for i in range(kh):
        for j in range(kw):
            yield i, j, padded[:, i : i + h, j : j + w]


def _depthwise_backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    # By hand: the derivative of the sum above is one padded image per tap, nine times the memory traffic of this. The
    # barriers keep XLA from computing g, or dx, anew in every fusion that reads it.
    x, kernel = saved
    g = lax.optimization_barrier(g)
    dx = depthwise(g, kernel[::-1, ::-1])
    dk = [jnp.sum((shifted * g).astype(jnp.float32), axis=(0, 1, 2)) for _, _, shifted in _shifts(x, kernel)]
    return lax.optimization_barrier(dx), jnp.stack(dk).reshape(kernel.shape).astype(kernel.dtype)


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


def conv_transpose(
    x: jax.Array, kernel: jax.Array, stride: int = 2, padding: int = 1, output_padding: int = 0
) -> jax.Array:
    """PyTorch's ConvTranspose2d, the transpose of `conv` with the same stride and padding.

    x: (n, h, w, in); kernel: (k, k, in, out). Returns (n, (h - 1) stride - 2 padding + k + output_padding, ..., out).
    """
    k = kernel.shape[0]
    if stride == 2 and padding == 1 and k + output_padding == 4:
        return _double(x, jnp.pad(kernel, ((0, output_padding), (0, output_padding), (0, 0), (0, 0))))
    low, high = k - 1 - padding, k - 1 - padding + output_padding
    return lax.conv_general_dilated(
        x, kernel[::-1, ::-1], (1, 1), ((low, high),) * 2, lhs_dilation=(stride, stride), dimension_numbers=DIMENSIONS
    )


def _double(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed 4x4 convolution, stride 2, padding 1, as one 2x2 convolution that makes the four output phases.

    Output row 2i + a sees input rows i - 1 + a and i + a through the rows 3 - a and 1 - a of the kernel. Convolving
    an input with zeros between its pixels takes four times the products, and ten times the time backwards on a CPU.
    """
    n, h, w, c = x.shape
    out = kernel.shape[-1]
    k = kernel[::-1, ::-1].reshape(2, 2, 2, 2, c, out)  # (row tap, a, column tap, b, in, out)
    k = k.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, c, 4 * out)
    y = conv(x, k, padding=1).reshape(n, h + 1, w + 1, 2, 2, out)
    rows = [jnp.stack([y[:, a : a + h, b : b + w, a, b] for b in (0, 1)], axis=3) for a in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, out)
