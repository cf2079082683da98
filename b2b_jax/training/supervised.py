"""The deblurrer's training step: one network, pairs of blurry and sharp photos, one loss."""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from b2b_jax import losses
from b2b_jax.inference.pipeline import full_resolution
from b2b_jax.training import augment, schedules
from b2b_jax.training import state as states
from b2b_jax.training.state import State

Array = jax.Array


def optimizer(config: ConfigDict, steps: int) -> optax.GradientTransformation:
    """AdamW under a cosine, with the global gradient norm clipped."""
    rate = schedules.cosine(config.learning_rate, config.final, steps, config.warmup)
    adam = optax.adamw(rate, *config.betas, weight_decay=config.weight_decay)
    return optax.chain(optax.clip_by_global_norm(config.clip), adam) if config.clip else adam


def init(network: nn.Module, adam: optax.GradientTransformation, ema: float, crop: int, key: Array) -> State:
    """A fresh state for square crops of `crop` pixels."""
    params = network.init(key, jnp.zeros((1, crop, crop, 3)))
    return states.create({"deblurrer": params}, {"deblurrer": adam}, ("deblurrer",) if ema else ())


def make_step(network: nn.Module, adam: optax.GradientTransformation, config: ConfigDict) -> Callable:
    """Returns step(state, frozen, batch, key) -> (state, metrics).

    `batch` holds uint8 `blurry` and `sharp` (n, crop, crop, 3); `frozen` is unused, no other network takes part.
    """
    loss_of = losses.RESTORATION[config.loss]

    def step(state: State, frozen: Mapping, batch: Mapping[str, Array], key: Array) -> tuple[State, dict]:
        del frozen
        blurry, sharp = augment.to_float(batch["blurry"]), augment.to_float(batch["sharp"])
        if config.augment:
            blurry, sharp = augment.dihedral(jax.random.fold_in(key, state.step), [blurry, sharp])

        def objective(params):
            restored = full_resolution(network.apply(params, blurry, train=True)).astype(jnp.float32)
            return jnp.mean(loss_of(restored, sharp)), -jnp.mean(losses.psnr_loss(restored, sharp))

        (loss, psnr), gradients = jax.value_and_grad(objective, has_aux=True)(state.params["deblurrer"])
        new = states.updated(state, "deblurrer", gradients, adam)
        new = states.averaged(new, config.ema).replace(step=state.step + 1)
        return states.keep_finite(new, state), {"loss": loss, "psnr": psnr}

    return step
