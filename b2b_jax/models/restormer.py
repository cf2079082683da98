"""Restormer: a transformer that attends over channels, the second deblurrer of Blur2Blur's tables.

Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022, arXiv 2111.09881.
NHWC images in [0, 1]; names as in the PyTorch original.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from b2b_jax.models import layers

LAYER_NORMS = ("WithBias", "BiasFree")


class LayerNorm(nn.Module):
    """Layer norm over the channels of each pixel; 'BiasFree' divides by the deviation but keeps the mean."""

    kind: str = "WithBias"
    eps: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        if self.kind == "WithBias":
            return layers.LayerNorm2d(self.eps, self.dtype, name="body")(x)
        layers.choose(dict.fromkeys(LAYER_NORMS), self.kind, "layer_norm")
        return ScaledByDeviation(self.eps, self.dtype, name="body")(x)


class ScaledByDeviation(nn.Module):
    """x / sqrt(var + eps) * scale, the variance over the channels of each pixel."""

    eps: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        scale, y = self.param("scale", nn.initializers.ones, (x.shape[-1],)), x.astype(jnp.float32)
        return (y * jax.lax.rsqrt(y.var(-1, keepdims=True) + self.eps) * scale).astype(self.dtype)


class Attention(nn.Module):
    """Multi-Dconv head transposed attention (figure 2a): the pixels are summed over, so its cost is linear in them."""

    heads: int
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        n, h, w, c = x.shape
        kw = {"use_bias": self.use_bias, "dtype": self.dtype}
        temperature = self.param("temperature", nn.initializers.ones, (self.heads, 1, 1))
        y = layers.Conv(3 * c, 1, name="qkv", **kw)(x)
        y = layers.Conv(3 * c, 3, groups=3 * c, name="qkv_dwconv", **kw)(y)
        q, k, v = (part.reshape(n, h * w, self.heads, c // self.heads) for part in jnp.split(y, 3, axis=-1))

        # The norms divide the product, not its factors: what depends on pixels stays in the compute type.
        scores = jnp.einsum("nphc,nphd->nhcd", q, k, preferred_element_type=jnp.float32)
        scores = scores / pixel_norm(q)[..., None] / pixel_norm(k)[..., None, :]  # one by one: their product underflows
        attention = jax.nn.softmax(scores * temperature, axis=-1).astype(self.dtype)
        y = jnp.einsum("nhcd,nphd->nphc", attention, v)
        return layers.Conv(c, 1, name="project_out", **kw)(y.reshape(n, h, w, c))


def pixel_norm(x: jax.Array) -> jax.Array:
    """The L2 norm over the pixels, at least 1e-12: (n, pixels, heads, c) -> (n, heads, c)."""
    squares = jnp.square(x.astype(jnp.float32)).sum(1)
    return jnp.sqrt(jnp.maximum(squares, 1e-24))  # the clamp inside keeps the gradient at zero finite


class FeedForward(nn.Module):
    """Gated-Dconv feed-forward network (figure 2b)."""

    expansion: float = 2.66
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        hidden, kw = int(x.shape[-1] * self.expansion), {"use_bias": self.use_bias, "dtype": self.dtype}
        y = layers.Conv(2 * hidden, 1, name="project_in", **kw)(x)
        y = layers.Conv(2 * hidden, 3, groups=2 * hidden, name="dwconv", **kw)(y)
        gate, y = jnp.split(y, 2, axis=-1)
        return layers.Conv(x.shape[-1], 1, name="project_out", **kw)(nn.gelu(gate, approximate=False) * y)


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    heads: int
    expansion: float = 2.66
    use_bias: bool = False
    layer_norm: str = "WithBias"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = {"kind": self.layer_norm, "dtype": self.dtype}
        x = x + Attention(self.heads, self.use_bias, self.dtype, name="attn")(LayerNorm(name="norm1", **norm)(x))
        y = LayerNorm(name="norm2", **norm)(x)
        return x + FeedForward(self.expansion, self.use_bias, self.dtype, name="ffn")(y)


class Restormer(nn.Module):
    """(n, h, w, 3) -> (n, h, w, 3), a U-Net of transformer blocks that adds to its input; nothing is clamped.

    dim: channels at the top, doubled at each of three reductions; the decoder's top level and the refinement work on
    2 dim. num_blocks, heads: of the four levels. num_refinement_blocks: blocks at full size after the decoder.
    expansion: hidden channels of the feed-forward, as a multiple of the block's. bias: whether convolutions have one
    (the first, and those that resize, never do). layer_norm: 'WithBias' or 'BiasFree'. Sides are padded by reflection
    to multiples of 8, as in the published evaluation. ValueError: not four levels, or an unknown layer norm.
    """

    dim: int = 48
    num_blocks: tuple[int, ...] = (4, 6, 6, 8)
    num_refinement_blocks: int = 4
    heads: tuple[int, ...] = (1, 2, 4, 8)
    expansion: float = 2.66
    bias: bool = False
    layer_norm: str = "WithBias"
    dtype: Any = jnp.float32

    @property
    def stride(self) -> int:
        """Both sides of an input should be multiples of this; others are padded."""
        return 8

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        if not len(self.num_blocks) == len(self.heads) == 4:
            raise ValueError(f"Restormer has four levels, got num_blocks {self.num_blocks} and heads {self.heads}")
        h, w, c = x.shape[1:]
        padded = layers.pad_to_multiple(x, self.stride, "reflect")
        y = layers.Conv(self.dim, 3, use_bias=False, dtype=self.dtype, name="patch_embed.proj")(padded)
        y = self._decode(self._encode(y))
        y = self._blocks("refinement", y, self.num_refinement_blocks, 0)
        return (padded + self._conv("output", y, c))[:, :h, :w]

    def _encode(self, y: jax.Array) -> list[jax.Array]:
        """The features of the four levels, the deepest last."""
        features = []
        for level in range(3):
            y = self._blocks(f"encoder_level{level + 1}", y, self.num_blocks[level], level)
            features.append(y)
            y = self._resize(f"down{level + 1}_{level + 2}", y, y.shape[-1] // 2)
            y = layers.pixel_unshuffle(y, 2)
        return [*features, self._blocks("latent", y, self.num_blocks[3], 3)]

    def _decode(self, features: list[jax.Array]) -> jax.Array:
        """Back to full size; the features of the encoder join, and are mixed by a 1x1 convolution but at the top."""
        y = features.pop()
        for level in (2, 1, 0):
            y = layers.pixel_shuffle(self._resize(f"up{level + 2}_{level + 1}", y, 2 * y.shape[-1]), 2)
            y = jnp.concatenate([y, features.pop()], axis=-1)
            if level > 0:
                y = self._conv(f"reduce_chan_level{level + 1}", y, y.shape[-1] // 2, 1)
            y = self._blocks(f"decoder_level{level + 1}", y, self.num_blocks[level], level)
        return y

    def _blocks(self, name: str, y: jax.Array, number: int, level: int) -> jax.Array:
        args = (self.heads[level], self.expansion, self.bias, self.layer_norm, self.dtype)
        for i in range(number):
            y = TransformerBlock(*args, name=f"{name}.{i}")(y)
        return y

    def _resize(self, name: str, x: jax.Array, features: int) -> jax.Array:
        return layers.Conv(features, 3, use_bias=False, dtype=self.dtype, name=f"{name}.body.0")(x)

    def _conv(self, name: str, x: jax.Array, features: int, kernel_size: int = 3) -> jax.Array:
        return layers.Conv(features, kernel_size, use_bias=self.bias, dtype=self.dtype, name=name)(x)
