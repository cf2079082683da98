"""What every adversarial training here shares: the lazy gradient penalty, and how well a discriminator tells two piles.

Images are NHWC float32 in [0, 1].
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from b2b_jax import losses
from b2b_jax.training.state import Params

Array = jax.Array


class Mix(NamedTuple):
    """What a penalty is taken between."""

    real: Array  # (n, h, w, 3)
    fake: Array  # (n, h, w, 3)
    alpha: Array  # (n, 1, 1, 1) in [0, 1): the share of the real one


def lazy_penalty(discriminator: nn.Module, config: ConfigDict, params: Params, step: Array, mix: Mix) -> Array:
    """Eq. 4 of Blur2Blur: λ · `every` · mean penalty in one step of `every`, zero in the others.

    `config` is a section `gradient_penalty`. A second derivative, of squares, is not for bfloat16: the discriminator
    computes in float32 here, its products with `config.precision`.
    """
    if not config.weight:
        return jnp.zeros(())
    exact = discriminator.clone(dtype=jnp.float32)

    @jax.default_matmul_precision(config.precision)
    def penalty(params: Params) -> Array:
        values = losses.gradient_penalty(lambda x: exact.apply(params, x, train=True), *mix)
        return config.weight * config.every * jnp.mean(values)

    if config.every == 1:
        return penalty(params)
    return jax.lax.cond(step % config.every == 0, penalty, lambda params: jnp.zeros(()), params)


def domain_auc(real_logits: Sequence[Array], fake_logits: Sequence[Array]) -> Array:
    """Share of (real, fake) image pairs that D ranks rightly: 1 = tells them apart, 0.5 = cannot (Mann–Whitney)."""
    real, fake = (sum(losses.per_image(x) for x in logits) for logits in (real_logits, fake_logits))
    return jnp.mean(jnp.where(real[:, None] == fake[None], 0.5, real[:, None] > fake[None]))
