"""The parts of MAXIM around its spatial MLPs: channel attention, resizing, and the blocks of its U-Nets.

Figures: Tu et al., CVPR 2022, arXiv 2201.02973. Features are (n, h, w, c).
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from b2b_jax.models import layers
from b2b_jax.models.maxim_mlps import CrossGatingBlock, Dense, Enlarge, MultiAxisGmlp, Sizes, conv, gelu

# ---- attention ----


class ChannelAttention(nn.Module):
    """x times a weight for each channel, from the means over the image."""

    reduction: int = 4
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, kw = x.shape[-1], {"use_bias": self.use_bias, "dtype": jnp.float32}  # of one pixel: it costs nothing
        y = x.mean((1, 2), keepdims=True, dtype=jnp.float32)
        y = nn.relu(conv("Conv_0", y, c // self.reduction, **kw))
        return (x * nn.sigmoid(conv("Conv_1", y, c, **kw))).astype(x.dtype)


class ConvolutionAttention(nn.Module):
    """x + attention(conv(leaky_relu(conv(norm(x))))): RCAB."""

    reduction: int = 4
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, kw = x.shape[-1], {"use_bias": self.use_bias, "dtype": self.dtype}
        y = layers.LayerNorm2d(dtype=self.dtype, name="LayerNorm")(x)
        y = nn.leaky_relu(conv("conv1", y, c, 3, **kw), 0.2)
        y = conv("conv2", y, c, 3, **kw)
        return x + ChannelAttention(self.reduction, name="channel_attention", **kw)(y)


class ChannelMixing(nn.Module):
    """The MLP over the channels of each pixel."""

    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, kw = x.shape[-1], {"use_bias": self.use_bias, "dtype": self.dtype}
        return Dense(c, name="Dense_1", **kw)(gelu(Dense(c, name="Dense_0", **kw)(x)))


class MixingAttention(nn.Module):
    """x + attention(MLP(norm(x))): RDCAB, of the bottleneck."""

    reduction: int = 4
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kw = {"use_bias": self.use_bias, "dtype": self.dtype}
        y = layers.LayerNorm2d(dtype=self.dtype, name="LayerNorm")(x)
        y = ChannelMixing(name="channel_mixing", **kw)(y)
        return x + ChannelAttention(self.reduction, name="channel_attention", **kw)(y)


class SAM(nn.Module):
    """Supervised attention: the stage's image, and features weighed by what that image shows."""

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        kw = {"use_bias": self.use_bias, "dtype": self.dtype}
        y = conv("Conv_0", x, self.features, 3, **kw)
        output = image + conv("Conv_1", x, image.shape[-1], 3, **kw).astype(image.dtype)
        return x + y * nn.sigmoid(conv("Conv_2", output, self.features, 3, **kw)), output


# ---- the blocks of the U-Nets (figure 2a) ----


class BottleneckBlock(nn.Module):
    """Spatial MLPs and channel mixing at the lowest resolution."""

    features: int
    sizes: Sizes
    groups: int = 2
    reduction: int = 4
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kw = {"use_bias": self.use_bias, "dtype": self.dtype}
        x = start = conv("input_proj", x, self.features, **kw)
        for i in range(self.groups):
            x = MultiAxisGmlp(self.sizes, name=f"SplitHeadMultiAxisGmlpLayer_{i}", **kw)(x)
            x = MixingAttention(self.reduction, name=f"channel_attention_block_1_{i}", **kw)(x)
        return x + start


class UNetEncoderBlock(nn.Module):
    """Joins its inputs, (n, h, w, .) each, and cross-gates with the stage before; returns (halved, full) features."""

    features: int
    sizes: Sizes
    groups: int = 2
    reduction: int = 4
    downsample: bool = True
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Sequence[jax.Array], gate: jax.Array | None = None):
        kw = {"use_bias": self.use_bias, "dtype": self.dtype}
        x = start = conv("Conv_0", jnp.concatenate(inputs, axis=-1), self.features, **kw)
        for i in range(self.groups):
            x = MultiAxisGmlp(self.sizes, name=f"SplitHeadMultiAxisGmlpLayer_{i}", **kw)(x)
            x = ConvolutionAttention(self.reduction, name=f"channel_attention_block_1{i}", **kw)(x)
        x = x + start
        if gate is not None:
            x, _ = CrossGatingBlock(self.features, self.sizes, name="cross_gating_block", **kw)(x, gate)
        if not self.downsample:
            return x
        return conv("Conv_1", x, self.features, 4, stride=2, padding=1, **kw), x


class UNetDecoderBlock(nn.Module):
    """Doubles the sides of x and joins the skips in an encoder's block."""

    features: int
    sizes: Sizes
    groups: int = 2
    reduction: int = 4
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, skips: Sequence[jax.Array]) -> jax.Array:
        kw = {"use_bias": self.use_bias, "dtype": self.dtype}
        x = Enlarge(self.features, name="ConvTranspose_0", **kw)(x)
        args = (self.features, self.sizes, self.groups, self.reduction, False)
        return UNetEncoderBlock(*args, name="UNetEncoderBlock_0", **kw)([x, *skips])


# ---- resizing ----


class UpSampleRatio(nn.Module):
    """Bilinear resizing, sides times 2 ** doublings, and a 1x1 convolution, in the order that costs least.

    The two commute, as the weights of either resizing sum to one.
    """

    features: int
    doublings: int
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = shrink(x, 2**-self.doublings) if self.doublings < 0 else x
        y = conv("Conv_0", x, self.features, use_bias=self.use_bias, dtype=self.dtype)
        return enlarge(y, 2**self.doublings) if self.doublings > 0 else y


def enlarge(x: jax.Array, r: int) -> jax.Array:
    """Multiplies the sides of (n, h, w, c) by r, bilinear between pixel centres."""
    return _enlarge_axis(_enlarge_axis(x, r, 1), r, 2)


def _enlarge_axis(x: jax.Array, r: int, axis: int) -> jax.Array:
    n = x.shape[axis]
    padded = jnp.pad(x, [(int(i == axis), int(i == axis)) for i in range(4)], "edge")
    near = [jax.lax.slice_in_dim(padded, i, i + n, axis=axis) for i in range(3)]
    phases = []
    for position in (np.arange(r) + 0.5) / r + 0.5:  # in the padded axis, from the pixel before
        low, share = int(position), position % 1
        phases.append(near[low] * (1 - share) + near[low + 1] * share)
    return jnp.stack(phases, axis=axis + 1).reshape(*x.shape[:axis], r * n, *x.shape[axis + 1 :])


def shrink(x: jax.Array, r: int) -> jax.Array:
    """Divides the sides of (n, h, w, c) by an even r, antialiased: tent weights over 2 r pixels.

    At the border the weights of what lies inside are renormalised, as in jax.image.resize.
    """
    return _shrink_axis(_shrink_axis(x, r, 1), r, 2)


def _shrink_axis(x: jax.Array, r: int, axis: int) -> jax.Array:
    n = x.shape[axis] // r
    padded = jnp.pad(x, [(r // 2 * (i == axis),) * 2 for i in range(4)])
    tent = 1 - np.abs(np.arange(2 * r) - r + 0.5) / r
    total = sum(
        weight * jax.lax.slice_in_dim(padded, i, i + r * (n - 1) + 1, stride=r, axis=axis)
        for i, weight in enumerate(tent.tolist())
    )
    inside = np.full(n, tent.sum())
    inside[0] -= tent[: r // 2].sum()
    inside[-1] -= tent[-(r // 2) :].sum()
    shape = [n if i == axis else 1 for i in range(4)]
    return total / jnp.asarray(inside.reshape(shape), x.dtype)
