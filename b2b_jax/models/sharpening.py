"""How much a photo was over-sharpened, read from its edges: a sharpened edge overshoots, however blurred it was.

A spectrum does not show that: sharpening raises it where blur lowers it. The reader tells a few sharpenings, and none,
apart. One photo says little; all photos of a camera together say enough.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array

AMOUNTS = (0.75, 1.5, 2.25, 3.25, 5.0)  # of unsharp masks
SIGMAS = (0.8, 1.25, 2.2)  # pixels
KINDS = ((0.0, 1.0), *((amount, sigma) for amount in AMOUNTS for sigma in SIGMAS))
DARK = 0.02  # added to a window's deviation: one that shows nothing is not amplified


class SharpeningReader(nn.Module):
    """Windows (n, s, s, 3) -> logits (n, len(KINDS)).

    width: channels of the first of four layers. dropout: before the last, in training.
    """

    width: int = 16
    dropout: float = 0.3

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        grey = x.mean(-1, keepdims=True)
        grey = grey - grey.mean((1, 2), keepdims=True)
        x = grey / (grey.std((1, 2), keepdims=True) + DARK)
        x = nn.gelu(nn.Conv(self.width, (5, 5), name="edges")(x))
        for i, times in enumerate((1.5, 2, 3)):
            x = nn.Conv(int(times * self.width), (3, 3), strides=2, name=f"layers.{i}")(x)
            x = nn.gelu(nn.GroupNorm(self.width // 2, name=f"norms.{i}")(x))
        x = jnp.concatenate([x.mean((1, 2)), jnp.sqrt(jnp.square(x).mean((1, 2)) + 1e-6)], axis=-1)
        x = nn.gelu(nn.Dense(4 * self.width, name="hidden")(nn.Dropout(self.dropout, deterministic=not train)(x)))
        return nn.Dense(len(KINDS), name="out")(x)


def kind(amount: Array, sigma: Array) -> Array:
    """The number of the nearest of KINDS for masks (n,): (n,)."""
    row, column = nearest(amount, (0.0, *AMOUNTS)), nearest(sigma, SIGMAS)
    return jnp.where(row == 0, 0, 1 + (row - 1) * len(SIGMAS) + column)


def nearest(values: Array, steps: Sequence[float]) -> Array:
    """The numbers (n,) of the steps that are nearest to the values (n,)."""
    return jnp.abs(values[:, None] - jnp.asarray(steps)).argmin(1)
