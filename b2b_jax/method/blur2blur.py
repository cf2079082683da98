"""The Blur2Blur training step (Pham et al., CVPR 2024, arXiv 2403.16205, section 3), one function, D before G.

    y: blurry photo of the camera (unknown blur)      k: photo with the known blur ("real" for the discriminator)
    ŷ = G(y) at 1/4, 1/2 and full resolution          D: PatchGAN, shared by the three scales

    1. D descends  ½ (loss_fake(D(ŷ)) + loss_real(D(k))) + λ_gp · penalty(k, ŷ)                      eqs. 3 and 4
    2. G descends  loss_G(D(ŷ)) + λ_rec · Σ_scales content(ŷ_s, y_s), against the updated D          eqs. 2 and 5

Images are NHWC float32 in [0, 1]. G runs forward once: its outputs serve both updates.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from b2b_jax import losses
from b2b_jax.method import augment, curriculum, paired_translation
from b2b_jax.method.adversarial import Mix, domain_auc, lazy_penalty
from b2b_jax.method.known_blur import Make
from b2b_jax.method.paired_translation import Lesson
from b2b_jax.models.layers import pyramid
from b2b_jax.models.patchgan import multiscale
from b2b_jax.training import schedules
from b2b_jax.training import state as states
from b2b_jax.training.optimizers import accumulated, stretched
from b2b_jax.training.state import State

Array = jax.Array
Content = Callable[[Mapping, Array, Array], Array]  # (frozen, translated, blurry) -> one loss per image


class Blur2Blur(NamedTuple):
    """What a step is made of besides its state and photos."""

    networks: Mapping[str, nn.Module]  # "generator" and "discriminator"
    adams: Mapping[str, optax.GradientTransformation]
    content: Content
    config: ConfigDict  # the section `translator`
    lesson: Lesson | None = None  # a further loss of G, on pairs; not in the paper


class Photos(NamedTuple):
    """What one step sees."""

    y: Array  # (n, h, w, 3) with the unknown blur
    k: Array  # (n, h, w, 3) with the known blur
    alpha: Array  # (n, 1, 1, 1) in [0, 1): how the penalty mixes them
    taught: Callable[[states.Params], tuple[Array, dict]] | None = None  # the lesson's loss of G's weights, and metrics


def optimizers(config: ConfigDict, steps: int) -> dict[str, optax.GradientTransformation]:
    """Adam for each network: a constant rate, then a line to zero; only the generator's rate warms up."""

    def adam(rate: float, warmup: int) -> optax.GradientTransformation:
        schedule = schedules.constant_then_linear(rate, config.constant_steps, steps, warmup)
        one = optax.adam(stretched(schedule, config.accumulate), *config.betas, eps=1e-8)
        return accumulated(one, config.accumulate)

    return {
        "generator": adam(config.generator_rate, config.warmup),
        "discriminator": adam(config.discriminator_rate, 0),
    }


def init(method: Blur2Blur, key: Array) -> State:
    """A fresh state for the crops of `config.crop` pixels."""
    image, networks = jnp.zeros((1, method.config.crop, method.config.crop, 3)), enumerate(method.networks.items())
    params = {name: network.init(jax.random.fold_in(key, i), image) for i, (name, network) in networks}
    return states.create(params, method.adams, ("generator",) if method.config.ema else ())


def make_content(kind: str, vgg: nn.Module | None) -> Content:
    """The content loss of one scale; the VGG weights are `frozen["vgg"]`, an argument of the step."""
    if kind == "pooled":
        return lambda frozen, x, y: losses.pooled_charbonnier(x, y)
    return lambda frozen, x, y: losses.perceptual(lambda image: vgg.apply(frozen["vgg"], image), x, y)


def make_step(method: Blur2Blur, known_blur: Make) -> Callable:
    """Returns step(state, frozen, batch, key) -> (state, metrics).

    `batch` holds uint8 `unknown_blur` (n, crop, crop, 3) and what `known_blur` reads.
    """

    def step(state: State, frozen: Mapping, batch: Mapping[str, Array], key: Array) -> tuple[State, dict]:
        key = jax.random.fold_in(key, state.step)
        key_images, key_alpha = jax.random.split(key)
        k = known_blur(frozen, batch, jax.random.fold_in(key, 1))
        y, k = prepared(key_images, augment.to_float(batch["unknown_blur"]), k, method.config)
        alpha = jax.random.uniform(key_alpha, (len(y), 1, 1, 1))
        taught = method.lesson and partial(
            paired_translation.loss, method.lesson, frozen=frozen, batch=batch, key=jax.random.fold_in(key, 2)
        )
        new, metrics = update(method, state, frozen, Photos(y, k, alpha, taught))
        return states.finished(new, state, method.config.ema), metrics

    return step


def prepared(key: Array, y: Array, k: Array, config: ConfigDict) -> tuple[Array, Array]:
    """Both piles turned, mirrored and jittered, each in its own way."""
    images = [y, k]
    if config.augment:
        turned = augment.dihedral if config.turns else augment.mirror
        images = [turned(jax.random.fold_in(key, i), [x])[0] for i, x in enumerate(images)]
    if config.color_jitter:
        images = [
            augment.color_jitter(jax.random.fold_in(key, 2 + i), x, config.color_jitter) for i, x in enumerate(images)
        ]
    return images[0], images[1]


def update(method: Blur2Blur, state: State, frozen: Mapping, photos: Photos) -> tuple[State, dict[str, Array]]:
    """The algorithm above: both networks one optimiser step on; the step's number and the average stay."""
    counted = admitted(method.config.curriculum, photos.y, state.step)

    # ŷ = G(y), once
    fakes, generator_vjp = jax.vjp(lambda params: translate(method, params, photos.y), state.params["generator"])

    # 1. D
    def loss_d(params):
        logits = judge(method, params, photos.k, fakes)
        mix = Mix(photos.k, fakes[-1], photos.alpha)  # at full resolution only
        discriminator, settings = method.networks["discriminator"], method.config.gradient_penalty
        penalty = lazy_penalty(discriminator, settings, params, state.step, mix)
        return discriminator_loss(method, logits, penalty, counted)

    gradients, metrics_d = jax.grad(loss_d, has_aux=True)(state.params["discriminator"])
    new = states.updated(state, "discriminator", gradients, method.adams["discriminator"])

    # 2. G, against the updated D
    def loss_g(fakes):
        logits = multiscale(method.networks["discriminator"], new.params["discriminator"], fakes)
        pairs = zip(fakes, pyramid(photos.y), strict=True)
        content = sum(method.content(frozen, x, y) for x, y in pairs)
        return generator_loss(method, logits, content, counted)

    cotangents, metrics_g = jax.grad(loss_g, has_aux=True)(fakes)
    (gradients,) = generator_vjp(cotangents)
    if photos.taught:
        more, metrics_p = jax.grad(photos.taught, has_aux=True)(state.params["generator"])
        gradients = jax.tree.map(lambda g, m: g + method.config.pairs.weight * m, gradients, more)
        metrics_g |= metrics_p
    return states.updated(new, "generator", gradients, method.adams["generator"]), metrics_d | metrics_g


def admitted(config: ConfigDict, y: Array, step: Array) -> Array | None:
    """The curriculum's weight of each photo (n,); None when all count."""
    if config.start >= 1:
        return None
    return curriculum.mask(y, curriculum.share(step, config), config.direction)


def translate(method: Blur2Blur, params: states.Params, y: Array) -> list[Array]:
    """G(y) at 1/4, 1/2 and full resolution, float32; a generator of one scale is reduced."""
    outputs = method.networks["generator"].apply(params, y, train=True)
    scales = outputs if isinstance(outputs, list) else pyramid(outputs)
    return [x.astype(jnp.float32) for x in scales]


def judge(method: Blur2Blur, params: states.Params, k: Array, fakes: Sequence[Array]) -> tuple[list, list]:
    """D's logits of the real photos and of the fakes, each a list over the three scales."""
    # Real and fake pass in one batch: without batch norm no layer mixes images. They alternate in it, so that a device
    # which holds some photos of either pile has their whole part of it.
    both = [jnp.stack(pair, axis=1) for pair in zip(pyramid(k), jax.lax.stop_gradient(fakes), strict=True)]
    images = [x.reshape(-1, *x.shape[2:]) for x in both]
    logits = multiscale(method.networks["discriminator"], params, images)
    logits = [x.reshape(-1, 2, *x.shape[1:]) for x in logits]
    return [x[:, 0] for x in logits], [x[:, 1] for x in logits]


def discriminator_loss(
    method: Blur2Blur, logits: tuple[list, list], penalty: Array, counted: Array | None
) -> tuple[Array, dict[str, Array]]:
    """Eq. 3: ½ (fake + real) + λ_gp · penalty, and its parts; `logits` as `judge` gives them."""
    gan, (real_logits, fake_logits) = losses.GAN_LOSSES[method.config.gan_loss], logits
    fake = losses.weighted_mean(losses.multiscale_gan(gan.fake, fake_logits), counted)
    real = jnp.mean(losses.multiscale_gan(gan.real, real_logits))
    loss = 0.5 * (fake + real) + penalty
    metrics = {"loss_d": loss, "d_fake": fake, "d_real": real, "gradient_penalty": penalty}
    return loss, metrics | {"d_auc": domain_auc(real_logits, fake_logits)}


def generator_loss(
    method: Blur2Blur, logits: Sequence[Array], content: Array, counted: Array | None
) -> tuple[Array, dict[str, Array]]:
    """Eqs. 2 and 5: adversarial + λ_rec · content (n,), and its parts."""
    adversarial = losses.multiscale_gan(losses.GAN_LOSSES[method.config.gan_loss].generator, logits)
    adversarial, kept = (losses.weighted_mean(x, counted) for x in (adversarial, content))
    loss = adversarial + method.config.content.weight * kept
    return loss, {"loss_g": loss, "g_adversarial": adversarial, "g_content": kept}
