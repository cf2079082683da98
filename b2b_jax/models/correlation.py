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

    lags: pixels that the autocorrelation reaches to each side. width: of the two hidden layers.
    """

    lags: int = 12
    width: int = 128
    dtype: Any = jnp.float32  # unused: spectra are computed in float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x, side = x.astype(jnp.float32), 2 * self.lags + 1
        found = autocorrelations(x, self.lags).reshape(len(x), 2, side, side)
        half = found[:, :, self.lags :].reshape(len(x), -1)  # the other half is its mirror image
        y = jnp.concatenate([SCALE * half, strengths(x) + SHIFT], axis=-1)
        for i in range(2):
            y = nn.leaky_relu(nn.Dense(self.width, name=f"layers.{i}")(y), 0.2)
        return nn.Dense(1, name="logit")(y).reshape(-1, 1, 1, 1)
