"""Translation with pairs: what the frozen deblurrer makes of the translated photo must be the sharp one.

    loss = | D_K(G(C(s))) - s |        C(s): a sharp photo as the learnt camera would have taken it

For a deblurrer that is too large, or too foreign, to be adapted: D_K stays as it is. A further loss of Blur2Blur's
generator, or its only one. Images are NHWC float32 in [0, 1].
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from b2b_jax import losses
from b2b_jax.method.supervised import MakePairs
from b2b_jax.networks import full_resolution
from b2b_jax.training import state as states
from b2b_jax.training.state import Params, State

Array = jax.Array


class Lesson(NamedTuple):
    """What the loss is made of besides weights and photos."""

    generator: nn.Module
    deblurrer: nn.Module  # its weights are `frozen["deblurrer"]`, an argument of the step
    pairs: MakePairs


def loss(lesson: Lesson, params: Params, frozen: Mapping, batch: Mapping[str, Array], key: Array) -> tuple[Array, dict]:
    """The loss above and its metrics, for the generator's `params` and the pairs made of `batch`."""
    blurry, sharp = lesson.pairs(frozen, batch, key)
    translated = full_resolution(lesson.generator.apply(params, blurry, train=True)).astype(jnp.float32)
    restored = full_resolution(lesson.deblurrer.apply(frozen["deblurrer"], translated))
    value = jnp.mean(losses.l1(restored, sharp))
    return value, {"g_pairs": value, "psnr": -jnp.mean(losses.psnr_loss(restored, sharp))}


def init(lesson: Lesson, adam: optax.GradientTransformation, ema: float, crop: int, key: Array) -> State:
    """A fresh state for square crops of `crop` pixels."""
    params = lesson.generator.init(key, jnp.zeros((1, crop, crop, 3)))
    return states.create({"generator": params}, {"generator": adam}, ("generator",) if ema else ())


def make_step(lesson: Lesson, adam: optax.GradientTransformation, ema: float) -> Callable:
    """Returns step(state, frozen, batch, key) -> (state, metrics), with this loss alone and no discriminator."""

    def step(state: State, frozen: Mapping, batch: Mapping[str, Array], key: Array) -> tuple[State, dict]:
        key = jax.random.fold_in(key, state.step)
        objective = jax.value_and_grad(lambda params: loss(lesson, params, frozen, batch, key), has_aux=True)
        (value, metrics), gradients = objective(state.params["generator"])
        new = states.updated(state, "generator", gradients, adam)
        return states.finished(new, state, ema), metrics | {"loss": value}

    return step
