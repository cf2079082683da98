"""Convolutions with PyTorch's geometry, in the forms that compile to fast programs on CPU, GPU and TPU.

Arrays are NHWC, kernels (kh, kw, in, out). Every convolution of the package comes through `conv` or `conv_transpose`.
On a CPU the gradients of `general` are convolutions with their axes in this very order (`in_order`): XLA reorders those
of others only outside of conditions and loops. Inside, where the gradient penalty is, others take up to ten times as
long; so would `narrowing` and `shallow`, whose 3x3 kernels no PatchGAN has.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
Geometry = tuple[int, tuple[int, int], int, str | None]  # stride, padding (vertical, horizontal), groups, precision
FEW = 12  # channels out, up to which `narrowing` pays on a CPU: a photo has 3, one behind a pixel-unshuffle 12


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
    if stride == 1 and groups == 1 and (kh, kw) == (1, 1) and ph == pw == 0:
        return pointwise(x, kernel[0, 0])
    if stride == 1 and groups == 1 and (kh, kw) == (3, 3) and _is_shallow(kernel):
        return shallow(x, kernel, (ph, pw))
    if stride == 1 and groups == 1 and (kh, kw) == (3, 3) and 1 < kernel.shape[3] < min(kernel.shape[2], FEW + 1):
        return narrowing(x, kernel, (ph, pw))
    # The precision is that of the caller. JAX derives the gradients later, when what the caller had set is gone.
    return general(x, kernel, (stride, (ph, pw), groups, jax.config.jax_default_matmul_precision))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def general(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """A convolution of any geometry whose gradients can be derived again, as a gradient penalty does, at low cost."""
    return _convolve(x, kernel, geometry)


def _convolve(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    stride, padding, groups, precision = geometry
    options = {"dimension_numbers": DIMENSIONS, "feature_group_count": groups, "precision": precision}
    return lax.conv_general_dilated(x, kernel, (stride, stride), [(p, p) for p in padding], **options)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def over_image(g: jax.Array, kernel: jax.Array, shape: tuple[int, ...], geometry: Geometry) -> jax.Array:
    """The gradient over an image of this shape, Σ over_image(g, kernel) x = Σ g general(x, kernel) for every x.

    Hence its own gradients are a convolution and a kernel's gradient again. JAX would derive the latter from a
    convolution of g with zeros between its pixels: at stride 2 that is seven times slower on a CPU.
    """

    def by_jax(g: jax.Array, kernel: jax.Array) -> jax.Array:
        image = jax.ShapeDtypeStruct(shape, g.dtype)
        return jax.linear_transpose(lambda x: _convolve(x, kernel, geometry), image)(g)[0]

    def in_order(g: jax.Array, kernel: jax.Array) -> jax.Array:
        stride, padding, _, precision = geometry
        sizes = zip(shape[1:], g.shape[1:], kernel.shape, padding, strict=False)
        pads = [(k - 1 - p, size + p - stride * (out - 1) - 1) for size, out, k, p in sizes]
        turned, options = kernel[::-1, ::-1].swapaxes(2, 3), {"dimension_numbers": DIMENSIONS, "precision": precision}
        return lax.conv_general_dilated(g, turned, (1, 1), pads, lhs_dilation=(stride, stride), **options)

    return lax.platform_dependent(g, kernel, cpu=by_jax if geometry[2] > 1 else in_order, default=by_jax)


def _over_kernel(x: jax.Array, g: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    def by_jax(x: jax.Array, g: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda kernel: _convolve(x, kernel, geometry), kernel)(g)[0]

    def in_order(x: jax.Array, g: jax.Array) -> jax.Array:
        stride, padding, _, precision = geometry
        sizes = zip(x.shape[1:], g.shape[1:], kernel.shape, padding, strict=False)
        pads = [(p, k + stride * (out - 1) - size - p) for size, out, k, p in sizes]
        x, g, options = x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), {"dimension_numbers": DIMENSIONS}
        dk = lax.conv_general_dilated(x, g, (1, 1), pads, rhs_dilation=(stride, stride), precision=precision, **options)
        return dk.transpose(1, 2, 0, 3)

    return lax.platform_dependent(x, g, cpu=by_jax if geometry[2] > 1 else in_order, default=by_jax)


def _general_backward(
    geometry: Geometry, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    return over_image(g, kernel, x.shape, geometry), _over_kernel(x, g, kernel, geometry)


def _over_image_backward(
    shape: tuple[int, ...], geometry: Geometry, saved: tuple[jax.Array, jax.Array], dx: jax.Array
) -> tuple[jax.Array, jax.Array]:
    g, kernel = saved
    return general(dx, kernel, geometry), _over_kernel(dx, g, kernel, geometry)


general.defvjp(lambda x, kernel, geometry: (general(x, kernel, geometry), (x, kernel)), _general_backward)
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


@jax.custom_vjp
def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """1x1 convolution: x (n, h, w, in), kernel (in, out). On a CPU a product is twice as fast as XLA's convolution."""
    return x @ kernel


def _pointwise_backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    # On a CPU the kernel's gradient starts with a transposed copy, into which XLA would fuse all that made x and g.
    (x, kernel), g = saved, lax.optimization_barrier(g)
    x = lax.optimization_barrier(x)
    dk = (g.reshape(-1, g.shape[-1]).T @ x.reshape(-1, x.shape[-1])).T
    return lax.optimization_barrier(g @ kernel.T), dk


pointwise.defvjp(lambda x, kernel: (pointwise(x, kernel), (x, kernel)), _pointwise_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def narrowing(x: jax.Array, kernel: jax.Array, padding: tuple[int, int]) -> jax.Array:
    """3x3 convolution of stride 1 with few channels out: a network's last. Padding is (vertical, horizontal)."""
    return _slide(x, kernel, padding)


def _slide(x: jax.Array, kernel: jax.Array, padding: tuple[int, int], dimensions=DIMENSIONS) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), [(p, p) for p in padding], dimension_numbers=dimensions)


def _narrowing_backward(
    padding: tuple[int, int], saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    (dx,) = jax.vjp(lambda x: _slide(x, kernel, padding), x)[1](g)
    dk = lax.platform_dependent(
        x,
        g,
        cpu=lambda x, g: image_over_gradient(x, g, padding),
        default=lambda x, g: jax.vjp(lambda kernel: _slide(x, kernel, padding), kernel)[1](g)[0],
    )
    return dx, dk


def image_over_gradient(x: jax.Array, g: jax.Array, padding: tuple[int, int]) -> jax.Array:
    """The kernel's gradient, dk[i, j, c, o] = Σ x[n, p + i, q + j, c] g[n, p, q, o], with x sliding over g.

    JAX lets g slide over x. XLA's matrix product on a CPU has the channels of what slides as its columns: where g has
    few, this is up to 30 times as fast.
    """
    rest = (2 - padding[0], 2 - padding[1])
    return _slide(g, x, rest, ("CHWN", "IHWO", "HWNC"))[::-1, ::-1].swapaxes(2, 3)


narrowing.defvjp(lambda x, kernel, padding: (narrowing(x, kernel, padding), (x, kernel)), _narrowing_backward)


def _is_shallow(kernel: jax.Array) -> bool:
    return kernel.shape[2] <= 16 and 1 < kernel.shape[3] <= 8


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def shallow(x: jax.Array, kernel: jax.Array, padding: tuple[int, int]) -> jax.Array:
    """3x3 convolution of stride 1 with so few channels that a CPU's matrix products are mostly overhead."""
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: neighbours(x, kernel, padding),
        default=lambda x, kernel: _slide(x, kernel, padding),
    )


def neighbours(x: jax.Array, kernel: jax.Array, padding: tuple[int, int]) -> jax.Array:
    """The convolution with 2 or 4 neighbouring pixels as channels of one: more products, in much less time."""
    count, out = 4 if kernel.shape[3] <= 4 else 2, kernel.shape[3]
    width = x.shape[2] + 2 * padding[1] - 2
    lacking = -width % count
    shifted = [jnp.pad(kernel, ((0, 0), (i, count - 1 - i), (0, 0), (0, 0))) for i in range(count)]
    wide = jnp.stack(shifted, axis=3).reshape(3, count + 2, kernel.shape[2], count * out)
    pads = ((padding[0],) * 2, (padding[1], padding[1] + lacking))
    y = lax.conv_general_dilated(x, wide, (1, count), pads, dimension_numbers=DIMENSIONS)
    return y.reshape(*y.shape[:2], width + lacking, out)[:, :, :width]


def _shallow_backward(
    padding: tuple[int, int], saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def by_jax(x: jax.Array, kernel: jax.Array, g: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: _slide(x, kernel, padding), x)[1](g)[0]

    def on_cpu(x: jax.Array, kernel: jax.Array, g: jax.Array) -> jax.Array:
        turned = kernel[::-1, ::-1].swapaxes(2, 3)
        if not _is_shallow(turned):
            return by_jax(x, kernel, g)
        return shallow(g, turned, (2 - padding[0], 2 - padding[1]))

    x, kernel = saved
    dx = lax.platform_dependent(x, kernel, g, cpu=on_cpu, default=by_jax)
    if kernel.shape[3] < kernel.shape[2]:
        return dx, _narrowing_backward(padding, saved, g)[1]
    return dx, jax.vjp(lambda kernel: _slide(x, kernel, padding), kernel)[1](g)[0]


shallow.defvjp(lambda x, kernel, padding: (shallow(x, kernel, padding), (x, kernel)), _shallow_backward)


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
    y = two_by_two(x, k).reshape(n, h + 1, w + 1, 2, 2, out)
    rows = [jnp.stack([y[:, a : a + h, b : b + w, a, b] for b in (0, 1)], axis=3) for a in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, out)


@jax.custom_vjp
def two_by_two(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """2x2 convolution of an image within a border of zeros: (n, h, w, in) -> (n, h + 1, w + 1, out)."""
    return _slide(x, kernel, (1, 1))


def _two_by_two_backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    (dx,) = jax.vjp(lambda x: _slide(x, kernel, (1, 1)), x)[1](g)
    dk = lax.platform_dependent(
        x,
        g,
        cpu=patch_product,
        default=lambda x, g: jax.vjp(lambda kernel: _slide(x, kernel, (1, 1)), kernel)[1](g)[0],
    )
    return dx, dk


def patch_product(x: jax.Array, g: jax.Array) -> jax.Array:
    """The kernel's gradient, dk[i, j, c, o] = Σ x[n, p + i - 1, q + j - 1, c] g[n, p, q, o], as one matrix product.

    On a CPU ten times as fast as XLA's convolution of x by a kernel as large as g.
    """
    (h, w), c = g.shape[1:3], x.shape[-1]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = jnp.concatenate([padded[:, i : i + h, j : j + w] for i in (0, 1) for j in (0, 1)], axis=-1)
    return (patches.reshape(-1, 4 * c).T @ g.reshape(-1, g.shape[-1])).reshape(2, 2, c, g.shape[-1])


two_by_two.defvjp(lambda x, kernel: (two_by_two(x, kernel), (x, kernel)), _two_by_two_backward)
