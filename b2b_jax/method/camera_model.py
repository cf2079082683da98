"""The camera model: a camera learnt from its two unpaired piles, then true pairs of it from every sharp photo.

Making blur is easier than removing it, and `models.camera` can make nothing but a camera's. It is trained as a GAN:

    y: blurry photo of the camera        s: sharp photo of it, of another scene        z ~ N(0, I)

    1. D descends  ½ (loss_fake(D(C(s, z))) + loss_real(D(y))) + λ_gp · penalty(y, C(s, z))
    2. C descends  loss_G(D(C(s, z))), against the updated D

Once D cannot tell C(s) from y, `pairs` gives as many (blurry, sharp) pairs of this camera as one likes. Public for
whoever trains with them: `draw_kernels` (C's kernels as they stand in pairs), `draw` (all of a shot) and `pairs`.
Images are NHWC float32 in [0, 1].
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from b2b_jax import losses
from b2b_jax.method import augment
from b2b_jax.method.adversarial import Mix, domain_auc, lazy_penalty
from b2b_jax.models.camera import Camera, Shot, photographed, render
from b2b_jax.training import state as states
from b2b_jax.training.state import State

Array = jax.Array

LAST_RATE = 0.05  # share of the camera's learning rate that is left at the last step


def optimizers(config: ConfigDict, steps: int) -> dict[str, optax.GradientTransformation]:
    """Adam for both networks: the camera's rate falls in a line, the discriminator's stays."""
    falling = optax.linear_schedule(config.camera_rate, LAST_RATE * config.camera_rate, steps)
    return {
        "camera": optax.adam(falling, *config.betas),
        "discriminator": optax.adam(config.discriminator_rate, *config.betas),
    }


class CameraModel(NamedTuple):
    """What a step is made of besides its state and photos."""

    networks: Mapping[str, nn.Module]  # "camera" and "discriminator"
    adams: Mapping[str, optax.GradientTransformation]
    config: ConfigDict  # the section `camera`


def init(method: CameraModel, crop: int, key: Array) -> State:
    """A fresh state; the discriminator sees square crops of `crop` pixels."""
    camera = method.networks["camera"]
    examples = {"camera": jnp.zeros((1, camera.latent)), "discriminator": jnp.zeros((1, crop, crop, 3))}
    keys = {name: jax.random.fold_in(key, i) for i, name in enumerate(examples)}
    params = {name: method.networks[name].init(keys[name], x) for name, x in examples.items()}
    return states.create(params, method.adams, ("camera",) if method.config.ema else ())


def make_step(method: CameraModel) -> Callable:
    """Returns step(state, frozen, batch, key) -> (state, metrics).

    `batch` holds uint8 `unknown_blur` (n, crop, crop, 3) and `unknown_sharp`, larger by the reach on each side.
    """

    def step(state: State, frozen: Mapping, batch: Mapping[str, Array], key: Array) -> tuple[State, dict]:
        key = jax.random.fold_in(key, state.step)
        y, s = augment.to_float(batch["unknown_blur"]), augment.to_float(batch["unknown_sharp"])
        new, metrics = update(method, state, y, s, key)
        return states.finished(new, state, method.config.ema), metrics

    return step


def update(method: CameraModel, state: State, y: Array, s: Array, key: Array) -> tuple[State, dict[str, Array]]:
    """The algorithm above for blurry y (n, h, w, 3) and sharp s, larger by the camera's reach."""
    networks, loss = method.networks, losses.GAN_LOSSES[method.config.gan_loss]
    key_shot, key_alpha = jax.random.split(key)
    alpha = jax.random.uniform(key_alpha, (len(y), 1, 1, 1))

    # C(s, z), once
    fake, camera_vjp = jax.vjp(lambda params: imagine(networks["camera"], params, s, key_shot), state.params["camera"])

    # 1. D
    def loss_d(params):
        return discriminator_loss(method, params, state.step, Mix(y, jax.lax.stop_gradient(fake), alpha))

    gradients, metrics = jax.grad(loss_d, has_aux=True)(state.params["discriminator"])
    new = states.updated(state, "discriminator", gradients, method.adams["discriminator"])

    # 2. C, against the updated D
    def loss_g(fake):
        return jnp.mean(loss.generator(networks["discriminator"].apply(new.params["discriminator"], fake)))

    value, cotangent = jax.value_and_grad(loss_g)(fake)
    return states.updated(new, "camera", *camera_vjp(cotangent), method.adams["camera"]), metrics | {"loss_g": value}


def imagine(camera: Camera, params: states.Params, s: Array, key: Array) -> Array:
    """C(s, z) with the noise of rounding to 8 bits, which is differentiable where rounding is not."""
    key_shot, key_noise, key_bits = jax.random.split(key, 3)
    x = render(s, camera.apply(params, jax.random.normal(key_shot, (len(s), camera.latent))), key_noise)
    return x + jax.random.uniform(key_bits, x.shape, minval=-0.5, maxval=0.5) / 255.0


def discriminator_loss(
    method: CameraModel, params: states.Params, step: Array, mix: Mix
) -> tuple[Array, dict[str, Array]]:
    """½ (fake + real) + λ_gp · penalty at full resolution, and its parts."""
    loss, discriminator = losses.GAN_LOSSES[method.config.gan_loss], method.networks["discriminator"]
    logits = discriminator.apply(params, jnp.stack([mix.real, mix.fake], axis=1).reshape(-1, *mix.real.shape[1:]))
    real_logits, fake_logits = jnp.moveaxis(logits.reshape(-1, 2, *logits.shape[1:]), 1, 0)
    real, fake = jnp.mean(loss.real(real_logits)), jnp.mean(loss.fake(fake_logits))
    penalty = lazy_penalty(discriminator, method.config.gradient_penalty, params, step, mix)
    value = 0.5 * (real + fake) + penalty
    metrics = {"loss_d": value, "d_real": real, "d_fake": fake, "gradient_penalty": penalty}
    return value, metrics | {"d_auc": domain_auc([real_logits], [fake_logits])}


# ---------------------------------------------------------------------------------------------------------------- pairs


def pairs(camera: Camera, variables: states.Params, s: Array, key: Array, threshold: float) -> tuple[Array, Array]:
    """True pairs of the camera: what it makes of sharp photos, rounded to 8 bits, and these photos, aligned with it.

    Args:
        camera, variables: as trained.
        s: (n, h, w, 3) in [0, 1].
        key: of the shots and the noise.
        threshold: as in `cleaned`.

    Returns:
        blurry and sharp, both float32 (n, h - 2 reach, w - 2 reach, 3) in [0, 1].
    """
    key_shot, key_noise = jax.random.split(key)
    return paired(s, draw(camera, variables, len(s), key_shot, threshold), camera.reach, key_noise)


def paired(s: Array, shot: Shot, reach: int, key: Array) -> tuple[Array, Array]:
    """`pairs` of given shots, of a camera that reaches so many pixels; `key` is of the noise."""
    blurry = photographed(s, shot, key)
    h, w = blurry.shape[1:3]
    return blurry, s[:, reach:, reach:][:, :h, :w]


def draw(camera: Camera, variables: states.Params, count: int, key: Array, threshold: float) -> Shot:
    """`count` random shots of the camera, `aligned`."""
    return aligned(camera.apply(variables, jax.random.normal(key, (count, camera.latent))), threshold)


def aligned(shot: Shot, threshold: float) -> Shot:
    """The shot as it stands in pairs, its kernels `cleaned` and `centred`."""
    return shot if shot.kernel is None else shot._replace(kernel=centred(cleaned(shot.kernel, threshold)))


def draw_kernels(camera: Camera, variables: states.Params, count: int, key: Array, threshold: float) -> Array:
    """Kernels (count, k, k) of the camera as they stand in its pairs: non-negative, of sum 1, on their centroids."""
    return steady(draw(camera, variables, count, key, threshold)).kernel


def steady(shot: Shot) -> Shot:
    """The shot with one kernel for each photo: where it drifts, that of the first corner."""
    return shot if shot.field is None else shot._replace(kernel=shot.kernel[:, 0], field=None)


def cleaned(kernel: Array, threshold: float) -> Array:
    """Kernels (..., k, k) without what is below `threshold` times their peak: a softmax leaves a haze."""
    kept = jnp.where(kernel < threshold * kernel.max((-2, -1), keepdims=True), 0.0, kernel)
    return kept / kept.sum((-2, -1), keepdims=True)


def centred(kernel: Array) -> Array:
    """Kernels (..., k, k) moved, bilinearly, so that their centroid is the central pixel: a pair must be aligned."""
    k = kernel.shape[-1]
    along = jnp.arange(k) - k // 2
    rows, columns = jnp.einsum("...ij,i->...", kernel, along), jnp.einsum("...ij,j->...", kernel, along)
    moved = jnp.einsum("...ai,...ij,...bj->...ab", _shift(along, rows), kernel, _shift(along, columns))
    return moved / moved.sum((-2, -1), keepdims=True)


def _shift(along: Array, distance: Array) -> Array:
    """Matrices (..., k, k) that take what is at i + distance to i, shared between two pixels."""
    return jnp.maximum(0, 1 - jnp.abs(along[:, None] + distance[..., None, None] - along))


# ----------------------------------------------------------------------------------------------------------- validation


def auc(method: CameraModel, params: Mapping[str, states.Params], y: Array, s: Array, key: Array) -> Array:
    """Share of (y, C(s)) that D ranks rightly: 0.5 when it cannot tell them apart. Take crops that D has not seen.

    Args:
        params: of "camera" and "discriminator".
        y: blurry crops (n, h, w, 3).
        s: sharp crops, larger by the camera's reach.
        key: of the shots.
    """
    judge = method.networks["discriminator"]
    fake = imagine(method.networks["camera"], params["camera"], s, key)
    real_logits, fake_logits = (judge.apply(params["discriminator"], x) for x in (y, fake))
    return domain_auc([real_logits], [fake_logits])


def total_variation(kernel: Array, truth: Array) -> Array:
    """Half the sum of the absolute differences of two kernels (k, k), or of their means over (n, k, k): 0 to 1."""
    mean, true_mean = (x.reshape(-1, *x.shape[-2:]).mean(0) for x in (kernel, truth))
    return 0.5 * jnp.abs(mean - true_mean).sum()
