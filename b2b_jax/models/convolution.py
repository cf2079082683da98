"""Convolutions with PyTorch's geometry, in the forms that compile to fast programs on CPU, GPU and TPU.

Arrays are NHWC, kernels (kh, kw, in, out). Every convolution of the package comes through `conv` or `conv_transpose`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from b2b_jax.models import convolution_cpu, convolution_gpu, onednn
from b2b_jax.models.convolution_cpu import DIMENSIONS, Form, Geometry


# Jitted, so that layers of one shape are traced once.
@functools.partial(jax.jit, static_argnames=("stride", "padding", "groups", "relu"))
def conv(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    groups: int = 1,
    bias: jax.Array | None = None,
    relu: bool = False,
) -> jax.Array:
    """Convolution with PyTorch's symmetric zero padding, also at stride 2, where XLA's 'SAME' pads otherwise.

    x: (n, h, w, in); kernel: (kh, kw, in / groups, out); padding: pixels on each side, one number or (vertical,
    horizontal); bias: (out,), added at the end; relu: ReLU comes last. Returns (n, (h + 2 padding - kh) // stride + 1,
    ..., out).
    """
    padding = (padding, padding) if isinstance(padding, int) else padding
    # The precision is that of the caller. JAX derives the gradients later, when what the caller had set is gone.
    geometry = Geometry(stride, padding, groups, jax.config.jax_default_matmul_precision)
    if bias is not None and onednn.form("forward", x.shape, kernel.shape, geometry, x.dtype, bias=True, relu=relu):
        return convolve_with_bias(x, kernel, bias, geometry, relu)
    y = _convolved(x, kernel, geometry)
    y = y if bias is None else y + bias
    return jax.nn.relu(y) if relu else y


def _convolved(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    stride, (ph, pw), groups, precision = geometry
    kh, kw = kernel.shape[:2]
    if stride == 1 and groups == x.shape[-1] == kernel.shape[-1] > 1 and (kh, kw) == (2 * ph + 1, 2 * pw + 1):
        return _depthwise(precision)(x, kernel)
    is_product = stride == 1 and groups == 1 and (kh, kw) == (1, 1) and ph == pw == 0
    if is_product and not onednn.form("forward", x.shape, kernel.shape, geometry, x.dtype):
        return pointwise(x, kernel[0, 0], precision)
    return convolve(x, kernel, geometry)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """A convolution of any geometry whose gradients can be derived again, as a gradient penalty does, at low cost."""
    form = onednn.form("forward", x.shape, kernel.shape, geometry, x.dtype)
    form = form or convolution_cpu.forward(kernel.shape, geometry)
    return _run(form, functools.partial(_by_jax, geometry=geometry), x, kernel)


def _by_jax(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    stride, padding, groups, precision = geometry
    options = {"dimension_numbers": DIMENSIONS, "feature_group_count": groups, "precision": precision}
    return lax.conv_general_dilated(x, kernel, (stride, stride), [(p, p) for p in padding], **options)


def _run(cpu: Form, default: Form, *arrays: jax.Array, gpu: Form = None) -> jax.Array:
    forms = {platform: form for platform, form in (("cpu", cpu), ("cuda", gpu)) if form}
    return lax.platform_dependent(*arrays, **forms, default=default) if forms else default(*arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def over_image(g: jax.Array, kernel: jax.Array, shape: tuple[int, ...], geometry: Geometry) -> jax.Array:
    """The gradient over an image of this shape, Σ over_image(g, kernel) x = Σ g convolve(x, kernel) for every x.

    Hence its own gradients are a convolution and a kernel's gradient again. JAX would derive the latter from a
    convolution of g with zeros between its pixels: at stride 2 that is seven times slower on a CPU.
    """

    def by_jax(g: jax.Array, kernel: jax.Array) -> jax.Array:
        image = jax.ShapeDtypeStruct(shape, g.dtype)
        return jax.linear_transpose(lambda x: _by_jax(x, kernel, geometry), image)(g)[0]

    form = onednn.form("over_image", shape, kernel.shape, geometry, g.dtype)
    return _run(form or convolution_cpu.over_image(shape, kernel.shape, geometry), by_jax, g, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def over_kernel(x: jax.Array, g: jax.Array, shape: tuple[int, ...], geometry: Geometry) -> jax.Array:
    """The gradient over a kernel of this shape, Σ over_kernel(x, g) k = Σ g convolve(x, k) for every kernel k."""

    def by_jax(x: jax.Array, g: jax.Array) -> jax.Array:
        kernel = jax.ShapeDtypeStruct(shape, g.dtype)
        return jax.linear_transpose(lambda kernel: _by_jax(x, kernel, geometry), kernel)(g)[0]

    form = onednn.form("over_kernel", x.shape, shape, geometry, g.dtype)
    gpu = convolution_gpu.over_kernel(x, shape, geometry)
    return _run(form or convolution_cpu.over_kernel(shape, geometry), by_jax, x, g, gpu=gpu)


def _convolve_backward(
    geometry: Geometry, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    return over_image(g, kernel, x.shape, geometry), over_kernel(x, g, kernel.shape, geometry)


def _over_image_backward(
    shape: tuple[int, ...], geometry: Geometry, saved: tuple[jax.Array, jax.Array], dx: jax.Array
) -> tuple[jax.Array, jax.Array]:
    g, kernel = saved
    return convolve(dx, kernel, geometry), over_kernel(dx, g, kernel.shape, geometry)


def _over_kernel_backward(
    shape: tuple[int, ...], geometry: Geometry, saved: tuple[jax.Array, jax.Array], dk: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, g = saved
    return over_image(g, dk, x.shape, geometry), convolve(x, dk, geometry)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def convolve_with_bias(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, geometry: Geometry, relu: bool = False
) -> jax.Array:
    """`convolve`, plus the bias, then ReLU if `relu`; oneDNN does it in one step, and both gradients in another."""

    def by_xla(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        y = convolve(x, kernel, geometry) + bias
        return jax.nn.relu(y) if relu else y

    form = onednn.form("forward", x.shape, kernel.shape, geometry, x.dtype, bias=True, relu=relu)
    return _run(form, by_xla, x, kernel, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def over_kernel_and_bias(
    x: jax.Array, g: jax.Array, shape: tuple[int, ...], geometry: Geometry
) -> tuple[jax.Array, jax.Array]:
    """`over_kernel`, and the gradient over the bias."""
    by_xla = lambda x, g: (over_kernel(x, g, shape, geometry), g.sum((0, 1, 2)))  # noqa: E731
    return _run(onednn.form("over_kernel", x.shape, shape, geometry, g.dtype, bias=True), by_xla, x, g)


def _with_bias_forward(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, geometry: Geometry, relu: bool
) -> tuple[jax.Array, tuple]:
    y = convolve_with_bias(x, kernel, bias, geometry, relu)
    return y, (x, kernel, y if relu else None)


def _with_bias_backward(geometry: Geometry, relu: bool, saved: tuple, g: jax.Array) -> tuple[jax.Array, ...]:
    x, kernel, y = saved
    g = jnp.where(y > 0, g, 0) if relu else g
    return over_image(g, kernel, x.shape, geometry), *over_kernel_and_bias(x, g, kernel.shape, geometry)


def _over_kernel_and_bias_backward(
    shape: tuple[int, ...], geometry: Geometry, saved: tuple[jax.Array, jax.Array], d: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x, g), (dk, db) = saved, d
    return over_image(g, dk, x.shape, geometry), convolve_with_bias(x, dk, db, geometry)


convolve_with_bias.defvjp(_with_bias_forward, _with_bias_backward)
over_kernel_and_bias.defvjp(
    lambda x, g, *static: (over_kernel_and_bias(x, g, *static), (x, g)), _over_kernel_and_bias_backward
)
convolve.defvjp(lambda x, kernel, geometry: (convolve(x, kernel, geometry), (x, kernel)), _convolve_backward)
over_kernel.defvjp(lambda x, g, *static: (over_kernel(x, g, *static), (x, g)), _over_kernel_backward)
over_image.defvjp(lambda g, kernel, *static: (over_image(g, kernel, *static), (g, kernel)), _over_image_backward)


def by_platform(cpu: Callable, default: Callable) -> Callable:
    """One function of arrays in two forms of equal value: what a CPU runs fastest, and one for all else.

    Its gradients are those of the form that runs.
    """

    @jax.custom_vjp
    def function(*arrays: jax.Array) -> jax.Array:
        return lax.platform_dependent(*arrays, cpu=cpu, default=default)

    def backward(saved: tuple[jax.Array, ...], g: jax.Array) -> tuple[jax.Array, ...]:
        def pull(form: Callable) -> Callable:
            return lambda g, *arrays: jax.vjp(form, *arrays)[1](g)

        return lax.platform_dependent(g, *saved, cpu=pull(cpu), default=pull(default))

    function.defvjp(lambda *arrays: (function(*arrays), arrays), backward)
    return function


def without_gradient(fast: Callable, plain: Callable) -> Callable:
    """A function of arrays that is `plain`, computed by `fast` where no gradient is asked for and a CPU runs it.

    `fast` is oneDNN's form, of equal value; it may raise OneDNNError.
    """

    def on_cpu(*arrays: Any) -> Any:
        try:
            return fast(*arrays)
        except onednn.OneDNNError:
            return plain(*arrays)

    @jax.custom_vjp
    def function(*arrays: Any) -> Any:
        return lax.platform_dependent(*arrays, cpu=on_cpu, default=plain)

    function.defvjp(lambda *arrays: jax.vjp(plain, *arrays), lambda pull, g: pull(g))
    return function


@functools.cache
def _depthwise(precision: str | None) -> Callable:
    """Of odd size, which keeps the image's: x (n, h, w, c), kernel (kh, kw, 1, c)."""

    def grouped(x: jax.Array, kernel: jax.Array) -> jax.Array:
        kh, kw, _, channels = kernel.shape
        return _by_jax(x, kernel, Geometry(1, (kh // 2, kw // 2), channels, precision))

    return by_platform(convolution_cpu.depthwise, grouped)


def pointwise(x: jax.Array, kernel: jax.Array, precision: str | None) -> jax.Array:
    """1x1 convolution, or a dense layer over the last axis: x (..., in), kernel (in, out)."""
    return _pointwise(precision)(x, kernel)


@functools.cache
def _pointwise(precision: str | None) -> Callable:
    on_cpu = lambda x, kernel: convolution_cpu.pointwise(x, kernel, precision)  # noqa: E731
    return by_platform(on_cpu, functools.partial(jnp.matmul, precision=precision))


def conv_transpose(
    x: jax.Array, kernel: jax.Array, stride: int = 2, padding: int = 1, output_padding: int = 0
) -> jax.Array:
    """PyTorch's ConvTranspose2d, the transpose of `conv` with the same stride and padding.

    x: (n, h, w, in); kernel: (k, k, in, out). Returns (n, (h - 1) stride - 2 padding + k + output_padding, ..., out).
    """
    k, precision = kernel.shape[0], jax.config.jax_default_matmul_precision
    if stride == 2 and padding == 1 and k + output_padding == 4:
        kernel = jnp.pad(kernel, ((0, output_padding), (0, output_padding), (0, 0), (0, 0)))
        return _doubled(precision)(x, kernel)
    pads = (k - 1 - padding, k - 1 - padding + output_padding)
    return _dilated(x, kernel, stride, pads, precision)


def _dilated(x: jax.Array, kernel: jax.Array, stride: int, pads: tuple[int, int], precision: str | None) -> jax.Array:
    options = {"lhs_dilation": (stride, stride), "dimension_numbers": DIMENSIONS, "precision": precision}
    return lax.conv_general_dilated(x, kernel[::-1, ::-1], (1, 1), (pads, pads), **options)


@functools.cache
def _doubled(precision: str | None) -> Callable:
    """Transposed 4x4 convolution, stride 2, padding 1: x (n, h, w, in), kernel (4, 4, in, out).

    A GPU gets it as what it is, the gradient of a convolution over its image. Only then does XLA know the gradient over
    its kernel and call cuDNN for it; otherwise it convolves by a kernel as large as the image, which took 4.9 of the 59
    ms of the paper's step on an H200.
    """
    return by_platform(*(functools.partial(form, precision=precision) for form in (_four_phases, _backwards)))


def _backwards(x: jax.Array, kernel: jax.Array, precision: str | None) -> jax.Array:
    n, h, w, _ = x.shape
    image = (n, 2 * h, 2 * w, kernel.shape[-1])
    return over_image(x, kernel.swapaxes(2, 3), image, Geometry(2, (1, 1), precision=precision))


def _four_phases(x: jax.Array, kernel: jax.Array, precision: str | None) -> jax.Array:
    """Transposed 4x4 convolution, stride 2, padding 1, as one 2x2 convolution that makes the four output phases.

    Output row 2i + a sees input rows i - 1 + a and i + a through the rows 3 - a and 1 - a of the kernel. Convolving
    an input with zeros between its pixels takes four times the products, and ten times the time backwards on a CPU.
    """
    n, h, w, c = x.shape
    out = kernel.shape[-1]
    k = kernel[::-1, ::-1].reshape(2, 2, 2, 2, c, out)  # (row tap, a, column tap, b, in, out)
    k = k.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, c, 4 * out)
    y = convolve(x, k, Geometry(padding=(1, 1), precision=precision)).reshape(n, h + 1, w + 1, 2, 2, out)
    rows = [jnp.stack([y[:, a : a + h, b : b + w, a, b] for b in (0, 1)], axis=3) for a in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, out)
