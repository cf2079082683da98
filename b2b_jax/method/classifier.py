"""The converter check's own judge (arXiv 2403.16205, table 6): a classifier of the known against the unknown blur.

Images are NHWC float32 in [0, 1].
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from b2b_jax.method import augment, blur2blur
from b2b_jax.method.known_blur import Make
from b2b_jax.models.classifier import ResNet18
from b2b_jax.training import state as states
from b2b_jax.training.state import State


def init(network: ResNet18, adam: optax.GradientTransformation, crop: int, key: jax.Array) -> State:
    """A fresh state for square crops of `crop` pixels."""
    params = network.init(key, jnp.zeros((1, crop, crop, 3)))
    return states.create({"classifier": params}, {"classifier": adam})


def make_step(network: ResNet18, adam: optax.GradientTransformation, make: Make, settings: ConfigDict) -> Callable:
    """Returns step(state, frozen, batch, key) -> (state, metrics): binary cross-entropy, known against unknown.

    `batch` holds uint8 `unknown_blur` (n, crop, crop, 3) and what `make` reads; `settings` is the translator's section,
    so that both judges see photos turned, mirrored and jittered in the same way.
    """

    def step(state: State, frozen: Mapping, batch: Mapping[str, jax.Array], key: jax.Array) -> tuple[State, dict]:
        key_known, key_photos = jax.random.split(jax.random.fold_in(key, state.step))
        k = make(frozen, batch, key_known)
        y, k = blur2blur.prepared(key_photos, augment.to_float(batch["unknown_blur"]), k, settings)

        def objective(params):
            unknown, known = network.apply(params, y, train=True), network.apply(params, k, train=True)
            loss = jnp.mean(jax.nn.softplus(unknown)) + jnp.mean(jax.nn.softplus(-known))
            return loss / 2, (jnp.mean(unknown <= 0) + jnp.mean(known > 0)) / 2

        (loss, accuracy), gradients = jax.value_and_grad(objective, has_aux=True)(state.params["classifier"])
        new = states.updated(state, "classifier", gradients, adam)
        return states.finished(new, state), {"loss": loss, "accuracy": accuracy}

    return step
