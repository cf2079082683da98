"""A discriminator of blur: it sees how a photo's gradients repeat and how strong they are, and nothing else.

    gradients of the luma  ->  autocorrelation of each, its centre, over its peak; logarithm of each's strength
    ->  2 layers (leaky ReLU)  ->  one logit for the photo

A PatchGAN also sees what is in the photos, and needs longer to see their blur. NHWC images in [0, 1].
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from b2b_jax.models.autocorrelation import autocorrelations, strengths

SCALE, SHIFT = 2.0, 3.0  # bring both parts to about 1


class CorrelationDiscriminator(nn.Module):
    """(n, h, w, 3) -> logits (n, 1, 1, 1).

    lags: pixels that the autocorrelation reaches to each side. width: of the two hidden layers. windows: parts along
    each side that are looked at apart, for blur that changes from one to the next.
    """

    lags: int = 12
    width: int = 128
    windows: int = 1
    dtype: Any = jnp.float32  # unused: spectra are computed in float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        n, side = len(x), 2 * self.lags + 1
        parts = _parts(x.astype(jnp.float32), self.windows)
        found = autocorrelations(parts, self.lags).reshape(len(parts), 2, side, side)
        half = found[:, :, self.lags :].reshape(len(parts), -1)  # the other half is its mirror image
        y = jnp.concatenate([SCALE * half, strengths(parts) + SHIFT], axis=-1).reshape(n, -1)
        for i in range(2):
            y = nn.leaky_relu(nn.Dense(self.width, name=f"layers.{i}")(y), 0.2)
        return nn.Dense(1, name="logit")(y).reshape(-1, 1, 1, 1)


def _parts(x: jax.Array, count: int) -> jax.Array:
    """`count` by `count` equal parts of each photo (n, h, w, 3), side by side: (n count², h', w', 3)."""
    n, h, w = len(x), x.shape[1] // count, x.shape[2] // count
    cut = x[:, : count * h, : count * w].reshape(n, count, h, count, w, 3)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(n * count**2, h, w, 3)
