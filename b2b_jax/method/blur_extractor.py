"""The blur extractor and its training step; `known_blur.transferred` uses it inside the translator's step.

Tran et al., "Explore Image Deblurring via Encoded Blur Kernel Space", CVPR 2021, arXiv 2104.00317: from a pair (sharp
x, blurry y) the extractor F codes the blur, k = F(x, y); the adapter G puts it back, G(x, k) = y. What was learnt on
known pairs then moves their blur onto the camera's own sharp photos. Images are NHWC float32 in [0, 1].
"""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from b2b_jax import losses
from b2b_jax.method import augment
from b2b_jax.training import state as states
from b2b_jax.training.state import State

Array = jax.Array


def init(network: nn.Module, optimizer: optax.GradientTransformation, crop: int, key: Array) -> State:
    """A fresh state for square crops of `crop` pixels."""
    params = network.init(key, jnp.zeros((1, crop, crop, 3)))
    return states.create({"blur_extractor": params}, {"blur_extractor": optimizer})


def make_step(network: nn.Module, optimizer: optax.GradientTransformation, config: ConfigDict) -> Callable:
    """Returns step(state, frozen, batch, key) -> (state, metrics); `batch` holds uint8 `blurry` and `sharp`."""

    def step(state: State, frozen: Mapping, batch: Mapping[str, Array], key: Array) -> tuple[State, dict]:
        key_photos, key_code = jax.random.split(jax.random.fold_in(key, state.step))
        blurry, sharp = augment.to_float(batch["blurry"]), augment.to_float(batch["sharp"])
        if config.augment:
            blurry, sharp = augment.dihedral(key_photos, [blurry, sharp])

        def objective(params: Mapping) -> tuple[Array, dict]:
            return extractor_loss(network, params, (sharp, blurry), config.kl_weight, key_code)

        gradients, metrics = jax.grad(objective, has_aux=True)(state.params["blur_extractor"])
        new = states.updated(state, "blur_extractor", gradients, optimizer)
        return states.finished(new, state), metrics

    return step


def extractor_loss(
    network: nn.Module, params: Mapping, pair: tuple[Array, Array], kl_weight: float, key: Array
) -> tuple[Array, dict[str, Array]]:
    """Charbonnier of the re-blurred pair (sharp, blurry); of a variational network, its codes' divergence from N(0, 1).

    Both count per value of the image, as in the evidence bound: the divergence is summed over a code and divided by
    the number of values of an image.
    """
    sharp, blurry = pair
    mean, sigma = network.apply(params, sharp, blurry, method="extract")
    reblurred = network.apply(params, sharp, sample(key, mean, sigma), method="adapt")
    loss = reconstruction = jnp.mean(losses.charbonnier(reblurred, blurry))
    metrics = {"reconstruction": reconstruction, "psnr": -jnp.mean(losses.psnr_loss(reblurred, blurry))}
    if network.variational:
        divergence = jnp.mean(kl(mean, sigma)) / sharp[0].size
        loss, metrics["kl"] = loss + kl_weight * divergence, divergence
    return loss, metrics | {"loss": loss}


def sample(key: Array, mean: Array, sigma: Array) -> Array:
    """A code: mean + sigma · noise."""
    return mean + sigma * jax.random.normal(key, mean.shape)


def kl(mean: Array, sigma: Array) -> Array:
    """KL divergence of N(mean, sigma²) from N(0, 1), summed over each code: (n, h, w, c) -> (n,)."""
    variance = jnp.square(sigma) + 1e-8
    return 0.5 * jnp.sum(jnp.square(mean) + variance - 1 - jnp.log(variance), axis=(1, 2, 3))
