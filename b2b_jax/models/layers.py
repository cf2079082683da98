"""Layers shared by all networks: convolution, normalisation and resizing, with PyTorch's meaning and names.

Arrays are NHWC. Parameters are float32; `dtype` is the type in which a layer computes. Kernels are (kh, kw, in, out).
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.initializers import Initializer
from jax import lax

from b2b_jax.models import onednn
from b2b_jax.models.convolution import conv, conv_transpose, without_gradient


def choose(table: Mapping[str, Any], name: str, what: str) -> Any:
    """Returns table[name]. ValueError: `name` is not in the table; the message lists the known names of `what`."""
    if name not in table:
        raise ValueError(f"{what} {name!r} is unknown; choose one of {', '.join(table)}")
    return table[name]


# ---- initialisation ----


def torch_uniform(fan_in: int) -> Initializer:
    """PyTorch's default for the kernel and the bias of a convolution: uniform in +-1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


# Keyword arguments of a convolution. 'normal' starts the networks of Blur2Blur, 'glorot' those of Keras.
INITS = {
    "torch": {},
    "normal": {"kernel_init": nn.initializers.normal(0.02), "bias_init": nn.initializers.zeros},
    "glorot": {"kernel_init": nn.initializers.glorot_uniform(), "bias_init": nn.initializers.zeros},
    "zeros": {"kernel_init": nn.initializers.zeros, "bias_init": nn.initializers.zeros},
}


# ---- convolution ----


class Conv(nn.Module):
    """Convolution with PyTorch's padding (default kernel_size // 2) and initialisation, then ReLU if `relu`."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: int | None = None
    use_bias: bool = True
    groups: int = 1
    relu: bool = False
    kernel_init: Initializer | None = None
    bias_init: Initializer | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        k, c = self.kernel_size, x.shape[-1] // self.groups
        padding = k // 2 if self.padding is None else self.padding
        default = torch_uniform(k * k * c)
        kernel, bias = self.param("kernel", self.kernel_init or default, (k, k, c, self.features)), None
        if self.use_bias:
            bias = self.param("bias", self.bias_init or default, (self.features,)).astype(self.dtype)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        return conv(x, kernel, self.stride, padding, self.groups, bias, self.relu)


class Blend(nn.Module):
    """The 1x1 convolution of several images as one, channels after channels; parameters as those of a `Conv`.

    Image i has its sides doubled `doublings[i]` times, by repeating pixels. As that commutes with the convolution,
    each image is convolved at its own size, and nothing of all their channels at the full size is ever made.
    """

    features: int
    doublings: tuple[int, ...]
    kernel_init: Initializer | None = None
    bias_init: Initializer | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Sequence[jax.Array], train: bool = False) -> jax.Array:
        channels = [x.shape[-1] for x in images]
        default = torch_uniform(sum(channels))
        kernel = self.param("kernel", self.kernel_init or default, (1, 1, sum(channels), self.features))
        kernels = jnp.split(kernel.astype(self.dtype), np.cumsum(channels)[:-1], axis=2)
        y = 0
        for x, part, doublings in zip(images, kernels, self.doublings, strict=True):
            added = conv(x.astype(self.dtype), part)
            for _ in range(doublings):
                added = nearest_double(added)
            y = y + added
        return y + self.param("bias", self.bias_init or default, (self.features,)).astype(self.dtype)


class ConvTranspose(nn.Module):
    """PyTorch's ConvTranspose2d; the default settings double both sides. PyTorch takes fan_in from the outputs."""

    features: int
    kernel_size: int = 4
    stride: int = 2
    padding: int = 1
    output_padding: int = 0
    use_bias: bool = True
    kernel_init: Initializer | None = None
    bias_init: Initializer | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        k = self.kernel_size
        default = torch_uniform(k * k * self.features)
        kernel = self.param("transposed_kernel", self.kernel_init or default, (k, k, x.shape[-1], self.features))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = conv_transpose(x, kernel, self.stride, self.padding, self.output_padding)
        if self.use_bias:
            y = y + self.param("bias", self.bias_init or default, (self.features,)).astype(self.dtype)
        return y


def in_steps(module: nn.Module, steps: Callable[[dict, jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """module(x), by `steps(parameters, x)`, oneDNN's form of it, where that is faster and no gradient is asked for."""
    if module.is_initializing() or not onednn.suits(x):
        return module(x)
    plain = module.clone(parent=None)
    function = without_gradient(steps, lambda parameters, x: plain.apply({"params": parameters}, x))
    return function(module.variables["params"], x)


# ---- normalisation: statistics in float32, biased variance ----


def instance_norm(x: jax.Array, eps: float = 1e-5) -> jax.Array:
    """Zero mean and unit variance over the pixels of each channel of each image; no parameters. (n, h, w, c)."""
    y = x.astype(jnp.float32)
    mean, var = y.mean((1, 2), keepdims=True), y.var((1, 2), keepdims=True)
    return ((y - mean) * lax.rsqrt(var + eps)).astype(x.dtype)


class BatchNorm(nn.Module):
    """PyTorch's BatchNorm2d. Running statistics: `mean`, `var` (unbiased) of the collection `batch_stats`.

    With `train` the batch's own statistics normalise, and the running ones move if their collection is mutable: a
    second use of the network in one step (a gradient penalty, say) leaves them alone by not asking for them.
    """

    eps: float = 1e-5
    momentum: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        c = x.shape[-1]
        scale, bias = self.param("scale", nn.initializers.ones, (c,)), self.param("bias", nn.initializers.zeros, (c,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (c,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (c,))
        y, mean, var = x.astype(jnp.float32), running_mean.value, running_var.value
        if train:
            mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                count = x.size // c
                running_mean.value += self.momentum * (mean - running_mean.value)
                running_var.value += self.momentum * (var * count / max(count - 1, 1) - running_var.value)
        return ((y - mean) * lax.rsqrt(var + self.eps) * scale + bias).astype(self.dtype)


NORMS = ("instance", "batch", "none")


def normalise(x: jax.Array, norm: str, name: str, train: bool, dtype: Any) -> jax.Array:
    """The `norm` of NORMS that follows a convolution; only 'batch' has parameters, under `name` in the calling module.

    ValueError: `norm` is unknown.
    """
    choose(dict.fromkeys(NORMS), norm, "norm")
    if norm == "batch":
        return BatchNorm(dtype=dtype, name=name)(x, train)
    return instance_norm(x) if norm == "instance" else x


@functools.partial(jax.jit, static_argnames="eps")  # layers of one shape are traced once
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    """Zero mean and unit variance over the last axis, then scale and bias (c,); float32 (..., c)."""
    y = x.astype(jnp.float32)  # the squares overflow float16
    y = y - y.mean(-1, keepdims=True)
    y = y - y.mean(-1, keepdims=True)  # what rounding left: it would show where a pixel's channels hardly differ
    var = jnp.square(y).mean(-1, keepdims=True)
    return y * lax.rsqrt(var + eps) * scale + bias


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of each pixel, with scale and bias (NAFNet: eps 1e-6; Restormer: 1e-5)."""

    eps: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        c = x.shape[-1]
        scale, bias = self.param("scale", nn.initializers.ones, (c,)), self.param("bias", nn.initializers.zeros, (c,))
        return layer_norm(x, scale, bias, self.eps).astype(self.dtype)


# ---- resizing ----


def pixel_shuffle(x: jax.Array, r: int) -> jax.Array:
    """(n, h, w, c r r) -> (n, h r, w r, c): channel c r r + i r + j becomes row i, column j of each r x r cell."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, c // (r * r), r, r)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(n, h * r, w * r, c // (r * r))


def pixel_unshuffle(x: jax.Array, r: int) -> jax.Array:
    """(n, h r, w r, c) -> (n, h, w, c r r), the inverse of `pixel_shuffle`; both sides must be multiples of r."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // r, r, w // r, r, c)
    return x.transpose(0, 1, 3, 5, 2, 4).reshape(n, h // r, w // r, c * r * r)


def cells(x: jax.Array, r: int) -> jax.Array:
    """(n, h, w, c) -> (n, h // r, r, w // r, r, c): the r x r cells of an image; an incomplete last one is dropped."""
    n, h, w, c = x.shape
    return x[:, : h // r * r, : w // r * r].reshape(n, h // r, r, w // r, r, c)


def nearest_half(x: jax.Array) -> jax.Array:
    """Halves both sides: the top left pixel of each 2x2 cell (PyTorch's nearest at scale 0.5)."""
    return cells(x, 2)[:, :, 0, :, 0]


def nearest_double(x: jax.Array) -> jax.Array:
    """Doubles both sides by repeating pixels."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def bilinear_double(x: jax.Array) -> jax.Array:
    """Doubles both sides between the corners (PyTorch's bilinear at scale 2, align_corners=True)."""
    return _double_axis(_double_axis(x, 1), 2)


def _double_axis(x: jax.Array, axis: int) -> jax.Array:
    n = x.shape[axis]
    position = np.arange(2 * n) * ((n - 1) / (2 * n - 1))
    low = np.minimum(position.astype(int), max(n - 2, 0))
    shape = [1] * x.ndim
    shape[axis] = 2 * n
    share = jnp.asarray(position - low, x.dtype).reshape(shape)
    return x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, n - 1), axis) * share


def bilinear_half(x: jax.Array) -> jax.Array:
    """Halves both sides: the mean of each 2x2 cell (PyTorch's bilinear at scale 0.5, no antialiasing)."""
    return cells(x, 2).mean((2, 4))


def bilinear_quarter(x: jax.Array) -> jax.Array:
    """Quarters both sides: the mean of the middle 2x2 of each 4x4 cell (PyTorch's bilinear at scale 0.25)."""
    return cells(x, 4)[:, :, 1:3, :, 1:3].mean((2, 4))


def pyramid(image: jax.Array) -> list[jax.Array]:
    """[quarter, half, full] resolution, the order of a multi-scale network's outputs."""
    return [bilinear_quarter(image), bilinear_half(image), image]


def max_pool(x: jax.Array) -> jax.Array:
    """Halves both sides: the maximum of each 2x2 cell. Backwards three times as fast on a CPU as a reduce-window."""
    return cells(x, 2).max((2, 4))


def reflection_pad(x: jax.Array, size: int) -> jax.Array:
    """Pads all four sides of (n, h, w, c) by reflection without repeating the border (PyTorch's ReflectionPad2d)."""
    return jnp.pad(x, ((0, 0), (size, size), (size, size), (0, 0)), "reflect")


def pad_to_multiple(x: jax.Array, multiple: int, mode: str = "constant") -> jax.Array:
    """Pads right and bottom until both sides are multiples of `multiple`; `mode` as in jnp.pad (default zeros)."""
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % multiple), (0, -x.shape[2] % multiple), (0, 0)), mode)


def to_signed(x: jax.Array) -> jax.Array:
    """Images in [0, 1] in the range [-1, 1], on which GANs are commonly trained."""
    return 2 * x - 1


def from_signed(x: jax.Array) -> jax.Array:
    """The inverse of `to_signed`."""
    return (x + 1) / 2
