"""The supervised training step: one network, pairs of blurry and sharp photos, one loss."""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from b2b_jax import losses
from b2b_jax.method import augment
from b2b_jax.models.layers import pyramid
from b2b_jax.training import state as states
from b2b_jax.training.state import State

Array = jax.Array
MakePairs = Callable[[Mapping, Mapping[str, Array], Array], tuple[Array, ...]]  # (frozen, batch, key)


def init(network: nn.Module, optimizer: optax.GradientTransformation, ema: float, crop: int, key: Array) -> State:
    """A fresh state for square crops of `crop` pixels."""
    params = network.init(key, jnp.zeros((1, crop, crop, 3)))
    return states.create({"deblurrer": params}, {"deblurrer": optimizer}, ("deblurrer",) if ema else ())


def make_step(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    config: ConfigDict,
    features: nn.Module | None = None,
    pairs: MakePairs | None = None,
) -> Callable:
    """Returns step(state, frozen, batch, key) -> (state, metrics).

    `pairs` makes blurry and sharp photos of a batch, by default as `given` does, and where the truth is not whole a
    third array, 1 in the pixels that have it. `features` serve the perceptual loss, with the weights
    `frozen["features"]`. The loss of a network of three scales is summed over them, against reductions of the sharp
    photos.
    """
    weights, pairs = losses.terms(config.loss), pairs or given(config.augment)

    def step(state: State, frozen: Mapping, batch: Mapping[str, Array], key: Array) -> tuple[State, dict]:
        key_photos, key_dropout = jax.random.split(jax.random.fold_in(key, state.step))
        blurry, *truth = pairs(frozen, batch, key_photos)
        loss_of = losses.weighted_sum(weights, lambda x: features.apply(frozen["features"], x))
        variables = state.params["deblurrer"]

        def objective(params: Mapping) -> tuple[Array, tuple]:
            outputs, moved = forward(network, {**variables, "params": params}, blurry, key_dropout)
            scales = compared(outputs, *truth)
            loss = sum(jnp.mean(loss_of(x, y)) for x, y in scales)
            return loss, (moved, -jnp.mean(losses.psnr_loss(*scales[-1])))

        (loss, (moved, psnr)), gradients = jax.value_and_grad(objective, has_aux=True)(variables["params"])
        new = states.updated_beside(state, "deblurrer", gradients, moved, optimizer)
        return states.finished(new, state, config.ema), {"loss": loss, "psnr": psnr}

    return step


def compared(outputs: list[Array], sharp: Array, kept: Array | None = None) -> list[tuple[Array, Array]]:
    """Each scale's output and its truth; both are black in the pixels where `kept` is not 1, which ask for nothing."""
    truths = pyramid(sharp)[-len(outputs) :]
    if kept is None:
        return list(zip(outputs, truths, strict=True))
    whole = 1 - 1e-3  # of a reduced mask: its weights need not add up to 1 exactly
    masks = [mask > whole for mask in pyramid(kept)[-len(outputs) :]]
    return [(x * mask, y * mask) for x, y, mask in zip(outputs, truths, masks, strict=True)]


def given(turned: bool) -> MakePairs:
    """The pairs of a batch that holds uint8 `blurry` and `sharp` (n, crop, crop, 3), turned and mirrored if asked."""

    def pairs(frozen: Mapping, batch: Mapping[str, Array], key: Array) -> tuple[Array, Array]:
        photos = augment.to_float(batch["blurry"]), augment.to_float(batch["sharp"])
        return tuple(augment.dihedral(key, photos)) if turned else photos

    return pairs


def forward(network: nn.Module, variables: Mapping, x: Array, key: Array) -> tuple[list[Array], Mapping]:
    """The network's outputs in training, the full resolution last, and its running statistics as they have moved."""
    statistics = [name for name in variables if name != "params"]
    outputs, moved = network.apply(variables, x, train=True, rngs={"dropout": key}, mutable=statistics)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    return [y.astype(jnp.float32) for y in outputs], moved
