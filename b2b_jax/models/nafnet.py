"""NAFNet: the deblurrer of Blur2Blur's main tables.

Chen et al., "Simple Baselines for Image Restoration", ECCV 2022, arXiv 2204.04676; its test-time local converter
(TLC): Chu et al., "Improving Image Restoration by Revisiting Global Information Aggregation", ECCV 2022,
arXiv 2112.04491. NHWC images in [0, 1]; names as in the PyTorch original.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from b2b_jax.models import layers, onednn

EPSILON = 1e-6  # of the norms
FEW_BOXES = 256  # along one axis, up to which their means are a product on a CPU


def local_mean(x: jax.Array, kernel: tuple[int, int]) -> jax.Array:
    """The mean of the box around each pixel, in float32; near a border, of the nearest box inside (TLC).

    x: (n, h, w, c); kernel: sides of the box in pixels. Returns (n, h, w, c), or the global mean (n, 1, 1, c) if the
    box covers x in both axes.
    """
    x = x.astype(jnp.float32)
    sides = [min(k, n) for k, n in zip(kernel, x.shape[1:3], strict=True)]
    if tuple(sides) == x.shape[1:3]:
        return x.mean((1, 2), keepdims=True)
    y = _box_mean(_box_mean(x, sides[0], axis=1), sides[1], axis=2)
    lost = [n - m for n, m in zip(x.shape, y.shape, strict=True)]  # even boxes lose one more at the right and bottom
    return jnp.pad(y, [(d // 2, -(-d // 2)) for d in lost], "edge")


@functools.partial(jax.jit, static_argnames=("k", "axis"))  # layers of one shape are traced once
def _box_mean(x: jax.Array, k: int, axis: int) -> jax.Array:
    """Means of k neighbours along one axis, n - k + 1 of them.

    Axis by axis: a sum over a whole photo would lose in float32 what the means need.
    """
    sums, product = (functools.partial(way, k=k, axis=axis) for way in (_means_by_sums, _means_by_product))
    few = x.shape[axis] - k < FEW_BOXES
    return jax.lax.platform_dependent(x, cpu=product, default=sums) if few else sums(x)


def _means_by_sums(x: jax.Array, k: int, axis: int) -> jax.Array:
    """Differences of running sums: their cost does not depend on k."""
    n = x.shape[axis]
    sums = jnp.pad(jnp.cumsum(x, axis), [(int(i == axis), 0) for i in range(x.ndim)])
    last, first = jax.lax.slice_in_dim(sums, k, n + 1, axis=axis), jax.lax.slice_in_dim(sums, 0, n + 1 - k, axis=axis)
    return (last - first) / k


def _means_by_product(x: jax.Array, k: int, axis: int) -> jax.Array:
    """A product with a band matrix: on a CPU twice as fast as running sums where boxes are few."""
    n = x.shape[axis]
    starts, places = np.arange(n - k + 1)[:, None], np.arange(n)
    band = ((places >= starts) & (places < starts + k)).astype(np.float32) / k
    return jnp.moveaxis(jnp.tensordot(band, x, (1, axis)), 0, axis)


def simple_gate(x: jax.Array) -> jax.Array:
    """The first half of the channels times the second (equation 4): (..., 2 c) -> (..., c)."""
    a, b = jnp.split(x, 2, axis=-1)
    return a * b


class NAFBlock(nn.Module):
    """The block of figure 3c; a fresh one is the identity. box: sides of the local mean, None for the global one."""

    box: tuple[int, int] | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        c = x.shape[-1]
        beta, gamma = (self.param(name, nn.initializers.zeros, (c,)).astype(self.dtype) for name in ("beta", "gamma"))

        y = self._norm("norm1", x)
        y = self._conv("conv2", self._conv("conv1", y, 2 * c), 2 * c, kernel_size=3, groups=2 * c)
        y = simple_gate(y)
        mean = local_mean(y, self.box or y.shape[1:3])
        y = y * self._conv("sca.1", mean, c)  # simplified channel attention, equation 5
        x = x + self._conv("conv3", y, c) * beta

        y = simple_gate(self._conv("conv4", self._norm("norm2", x), 2 * c))
        return x + self._conv("conv5", y, c) * gamma

    def _norm(self, name: str, x: jax.Array) -> jax.Array:
        return layers.LayerNorm2d(EPSILON, self.dtype, name=name)(x)

    def _conv(self, name: str, x: jax.Array, features: int, kernel_size: int = 1, groups: int = 1) -> jax.Array:
        return layers.Conv(features, kernel_size, groups=groups, dtype=self.dtype, name=name)(x)


def block_in_steps(parameters: dict, x: jax.Array, box: tuple[int, int] | None) -> jax.Array:
    """`NAFBlock`: the products of the gates and the sums are the last operations of convolutions.

    Scales and biases of norms, beta and gamma are multiplied into the kernels beside them.
    """
    p, c = parameters, x.shape[-1]
    steps = onednn.Steps()
    a, b = _halves(_after_norm(p["norm1"], p["conv1"]))
    y = steps.norm(x, EPSILON)
    a, b = steps.conv(y, *a), steps.conv(y, *b)
    first, second = _halves((p["conv2"]["kernel"], p["conv2"]["bias"]))
    steps.conv(b, *second, "times", steps.conv(a, *first))
    y = steps.run()

    steps, mean, sca = onednn.Steps(), local_mean(y, box or y.shape[1:3]), p["sca.1"]
    kernel, bias = _times(p["conv3"], p["beta"])
    if mean.shape == (1, 1, 1, c):
        kernel = kernel * (mean[0] @ sca["kernel"][0, 0] + sca["bias"]).reshape(c, 1)
    elif mean.shape[1:3] == (1, 1):
        y = y * (mean @ sca["kernel"][0, 0] + sca["bias"])
    else:
        y = steps.conv(mean, sca["kernel"], sca["bias"], "times", y)
    x = steps.conv(y, kernel, bias, "plus", x)
    a, b = _halves(_after_norm(p["norm2"], p["conv4"]))
    y = steps.norm(x, EPSILON)
    y = steps.conv(y, *b, "times", steps.conv(y, *a))
    steps.conv(y, *_times(p["conv5"], p["gamma"]), "plus", x)
    return steps.run()


def _after_norm(norm: dict, conv: dict) -> tuple[jax.Array, jax.Array]:
    """Kernel and bias of a 1x1 convolution after a norm without scale and bias."""
    kernel = conv["kernel"]
    return kernel * norm["scale"][:, None], conv["bias"] + norm["bias"] @ kernel[0, 0]


def _times(conv: dict, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Kernel and bias of a convolution whose outputs are scaled."""
    return conv["kernel"] * scale, conv["bias"] * scale


def _halves(conv: tuple[jax.Array, jax.Array]) -> list[tuple[jax.Array, ...]]:
    """Kernels and biases for the two halves of the channels out."""
    return list(zip(*(jnp.split(array, 2, axis=-1) for array in conv), strict=True))


class NAFNet(nn.Module):
    """(n, h, w, 3) -> (n, h, w, 3), a U-Net of NAFBlocks that adds to its input; nothing is clamped.

    width: channels at the top, doubled at each level. encoders, decoders: blocks a level (decoder 0 is the deepest).
    middle: blocks at the bottom. unshuffle: the network works on the r x r pixel-unshuffled image (2 for the small
    network of the demo). local: outside training each global mean becomes the mean of a box 1.5 times the size of
    the crops it was trained on, `train_size` pixels (TLC). Sides are padded by zeros to multiples of `stride`, as in
    the original; `outputs.apply`, through which photos go, repeats their last pixels instead.
    ValueError: encoders and decoders differ in number.
    """

    width: int = 32
    encoders: tuple[int, ...] = (1, 1, 1, 28)
    middle: int = 1
    decoders: tuple[int, ...] = (1, 1, 1, 1)
    unshuffle: int = 1
    local: bool = False
    train_size: int = 256
    dtype: Any = jnp.float32

    pads_zeros = True

    @property
    def stride(self) -> int:
        """Both sides of an input should be multiples of this; others are padded."""
        return 2 ** len(self.encoders) * self.unshuffle

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        if len(self.encoders) != len(self.decoders):
            raise ValueError(f"NAFNet needs as many decoders as encoders, got {self.encoders} and {self.decoders}")
        h, w, c = x.shape[1:]
        padded = layers.pad_to_multiple(x, self.stride)
        y = self._conv("intro", layers.pixel_unshuffle(padded, self.unshuffle), self.width, 3)
        y = self._conv("ending", self._unet(y, train), c * self.unshuffle**2, 3)
        return (padded + layers.pixel_shuffle(y, self.unshuffle))[:, :h, :w]

    def _unet(self, y: jax.Array, train: bool) -> jax.Array:
        skips = []
        for level, blocks in enumerate(self.encoders):
            y = self._blocks(f"encoders.{level}", y, blocks, level, train)
            skips.append(y)
            y = self._conv(f"downs.{level}", y, 2 * y.shape[-1], 2, stride=2, padding=0)
        y = self._blocks("middle_blks", y, self.middle, len(self.encoders), train)
        for i, blocks in enumerate(self.decoders):
            y = layers.pixel_shuffle(self._conv(f"ups.{i}.0", y, 2 * y.shape[-1], 1, use_bias=False), 2)
            y = self._blocks(f"decoders.{i}", y + skips.pop(), blocks, len(skips), train)
        return y

    def _blocks(self, name: str, y: jax.Array, number: int, level: int, train: bool) -> jax.Array:
        box = self._box(level) if self.local and not train else None
        for i in range(number):
            block = NAFBlock(box, self.dtype, name=f"{name}.{i}")
            y = layers.in_steps(block, functools.partial(block_in_steps, box=box), y)
        return y

    def _box(self, level: int) -> tuple[int, int]:
        """Sides of the TLC box: 1.5 times the side that a feature map of this level has for a training crop."""
        feature_size = -(-self.train_size // self.stride) * 2 ** (len(self.encoders) - level)
        side = feature_size * int(1.5 * self.train_size) // self.train_size
        return side, side

    def _conv(self, name: str, x: jax.Array, features: int, kernel_size: int, **kw: Any) -> jax.Array:
        return layers.Conv(features, kernel_size, dtype=self.dtype, name=name, **kw)(x)
