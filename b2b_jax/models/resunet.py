"""ResUNet: a small residual U-Net, the baseline that is trained from nothing in an hour.

Two reductions by max pooling, two residual blocks at the bottom, two enlargements by transposed convolutions; the
features of the first convolution are concatenated again at every level. NHWC images in [0, 1]; names as Keras gives
them.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from b2b_jax.models import layers


class ResidualBlock(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + conv1x1(x)), batch norm as in Keras (eps 1e-3, momentum 0.99)."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        y = nn.relu(self._norm("batch_normalization", self._conv("conv2d", x, 3), train))
        y = self._norm("batch_normalization_1", self._conv("conv2d_1", y, 3), train)
        return nn.relu(y + self._conv("conv2d_2", x, 1))

    def _norm(self, name: str, x: jax.Array, train: bool) -> jax.Array:
        return layers.BatchNorm(1e-3, momentum=0.01, dtype=self.dtype, name=name)(x, train)

    def _conv(self, name: str, x: jax.Array, kernel_size: int) -> jax.Array:
        return layers.Conv(self.features, kernel_size, dtype=self.dtype, name=name, **layers.INITS["glorot"])(x)


class ResUNet(nn.Module):
    """(n, h, w, 3) -> (n, h, w, 3); 972,739 numbers at width 16, the running statistics of its batch norms included.

    width: channels of the first convolution; 4 width and 8 width below. Sides that are no multiples of `stride` are
    padded by their last pixels and cropped back.
    """

    width: int = 16
    dtype: Any = jnp.float32

    @property
    def stride(self) -> int:
        """Both sides of an input should be multiples of this; others are padded."""
        return 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        h, w, c = x.shape[1:]
        x = layers.pad_to_multiple(x, self.stride, "edge").astype(self.dtype)
        first = self._conv("conv2d", x, self.width)
        y = self._conv("conv2d_1", jnp.concatenate([x, first], axis=-1), 4 * self.width)
        first = layers.max_pool(first)
        y = self._conv("conv2d_2", jnp.concatenate([layers.max_pool(y), first], axis=-1), 8 * self.width)
        y = jnp.concatenate([layers.max_pool(y), layers.max_pool(first)], axis=-1)
        for name in ("residual_block", "residual_block_1"):
            y = ResidualBlock(8 * self.width, self.dtype, name=name)(y, train)
        for name, features in (("conv2d_transpose", 8 * self.width), ("conv2d_transpose_1", 4 * self.width)):
            y = nn.relu(self._double(name, y, features))
        kw = {"dtype": self.dtype, "name": "conv2d_3", **layers.INITS["glorot"]}
        return layers.Conv(c, **kw)(y).astype(jnp.float32)[:, :h, :w]

    def _conv(self, name: str, x: jax.Array, features: int) -> jax.Array:
        return layers.Conv(features, relu=True, dtype=self.dtype, name=name, **layers.INITS["glorot"])(x)

    def _double(self, name: str, x: jax.Array, features: int) -> jax.Array:
        kw = {"dtype": self.dtype, "name": name, **layers.INITS["glorot"]}
        return layers.ConvTranspose(features, kernel_size=3, output_padding=1, **kw)(x)
