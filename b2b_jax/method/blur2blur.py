"""The Blur2Blur training step (Pham et al., CVPR 2024, arXiv 2403.16205, section 3), one function, D before G.

    y: blurry photo of the camera (unknown blur)      k: photo with the known blur ("real" for the discriminator)
    ŷ = G(y) at 1/4, 1/2 and full resolution          D: PatchGAN, shared by the three scales

    1. D descends  ½ (loss_fake(D(ŷ)) + loss_real(D(k))) + λ_gp · penalty(k, ŷ)                      eqs. 3 and 4
    2. G descends  loss_G(D(ŷ)) + λ_rec · Σ_scales content(ŷ_s, y_s), against the updated D          eqs. 2 and 5

Images are NHWC float32 in [0, 1]. G runs forward once: its outputs serve both updates.
"""

from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from b2b_jax import losses
from b2b_jax.method import augment, blur_extractor, curriculum
from b2b_jax.models.layers import pyramid
from b2b_jax.models.patchgan import multiscale
from b2b_jax.training import schedules
from b2b_jax.training import state as states
from b2b_jax.training.state import State

Array = jax.Array
Content = Callable[[Mapping, Array, Array], Array]  # (frozen, translated, blurry) -> one loss per image
KnownBlur = Callable[[Mapping, Mapping, Array], Array]  # (frozen, batch, key) -> photos with the known blur


def optimizers(config: ConfigDict, steps: int) -> dict[str, optax.GradientTransformation]:
    """Adam for each network: a constant rate, then a line to zero; only the generator's rate warms up."""

    def adam(rate: float, warmup: int) -> optax.GradientTransformation:
        schedule = schedules.constant_then_linear(rate, config.constant_steps, steps, warmup)
        return optax.adam(schedule, *config.betas, eps=1e-8)

    return {
        "generator": adam(config.generator_rate, config.warmup),
        "discriminator": adam(config.discriminator_rate, 0),
    }


def init(networks: Mapping[str, nn.Module], adams: Mapping, ema: float, crop: int, key: Array) -> State:
    """A fresh state for square crops of `crop` pixels."""
    image = jnp.zeros((1, crop, crop, 3))
    params = {name: net.init(jax.random.fold_in(key, i), image) for i, (name, net) in enumerate(networks.items())}
    return states.create(params, adams, ("generator",) if ema else ())


def make_content(kind: str, vgg: nn.Module | None) -> Content:
    """The content loss of one scale; the VGG weights are `frozen["vgg"]`, an argument of the step."""
    if kind == "pooled":
        return lambda frozen, x, y: losses.pooled_charbonnier(x, y)
    return lambda frozen, x, y: losses.perceptual(lambda image: vgg.apply(frozen["vgg"], image), x, y)


def make_known_blur(network: nn.Module | None) -> KnownBlur:
    """What D takes as real: the batch's `known_blur` or, with an extractor, the known pairs' blur on `unknown_sharp`.

    The extractor's weights are `frozen["blur_extractor"]`, an argument of the step.
    """
    if network is None:
        return lambda frozen, batch, key: augment.to_float(batch["known_blur"])
    return lambda frozen, batch, key: blur_extractor.known_blur(network, frozen["blur_extractor"], batch, key)


def make_step(
    networks: Mapping[str, nn.Module], adams: Mapping, content: Content, known_blur: KnownBlur, config: ConfigDict
) -> Callable:
    """Returns step(state, frozen, batch, key) -> (state, metrics).

    `batch` holds uint8 `unknown_blur` (n, crop, crop, 3) and what `known_blur` reads.
    """

    def step(state: State, frozen: Mapping, batch: Mapping[str, Array], key: Array) -> tuple[State, dict]:
        key = jax.random.fold_in(key, state.step)
        key_images, key_alpha = jax.random.split(key)
        k = known_blur(frozen, batch, jax.random.fold_in(key, 1))
        y, k = prepared(key_images, augment.to_float(batch["unknown_blur"]), k, config)
        alpha = jax.random.uniform(key_alpha, (len(y), 1, 1, 1))
        new, metrics = update(networks, adams, content, config, state, frozen, y, k, alpha)
        return states.keep_finite(new, state), metrics

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


def update(
    networks: Mapping[str, nn.Module],
    adams: Mapping[str, optax.GradientTransformation],
    content: Content,
    config: ConfigDict,
    state: State,
    frozen: Mapping,
    y: Array,
    k: Array,
    alpha: Array,
) -> tuple[State, dict[str, Array]]:
    """The algorithm above for y, k (n, h, w, 3) and the penalty's mixing factors alpha (n, 1, 1, 1)."""
    counted = None
    if config.curriculum.start < 1:
        share = curriculum.share(state.step, config.curriculum)
        counted = curriculum.mask(y, share, config.curriculum.direction)

    def translate(params):
        outputs = networks["generator"].apply(params, y, train=True)
        scales = outputs if isinstance(outputs, list) else pyramid(outputs)  # of a generator of one scale
        return [x.astype(jnp.float32) for x in scales]

    fakes, generator_vjp = jax.vjp(translate, state.params["generator"])

    def loss_d(params):
        return discriminator_loss(networks["discriminator"], config, params, state.step, fakes, k, alpha, counted)

    gradients, metrics_d = jax.grad(loss_d, has_aux=True)(state.params["discriminator"])
    new = states.updated(state, "discriminator", gradients, adams["discriminator"])

    def loss_g(fakes):
        logits = multiscale(networks["discriminator"], new.params["discriminator"], fakes)
        return generator_loss(config, content, frozen, logits, fakes, pyramid(y), counted)

    cotangents, metrics_g = jax.grad(loss_g, has_aux=True)(fakes)
    (gradients,) = generator_vjp(cotangents)
    new = states.updated(new, "generator", gradients, adams["generator"])
    return states.averaged(new, config.ema).replace(step=state.step + 1), metrics_d | metrics_g


def discriminator_loss(
    discriminator: nn.Module,
    config: ConfigDict,
    params: states.Params,
    step: Array,
    fakes: Sequence[Array],
    k: Array,
    alpha: Array,
    counted: Array | None,
) -> tuple[Array, dict[str, Array]]:
    """½ (fake + real) + λ_gp · penalty, and its parts."""
    gan = losses.GAN_LOSSES[config.gan_loss]
    # Real and fake pass in one batch: without batch norm no layer mixes images. They alternate in it, so that a device
    # which holds some photos of either pile has their whole part of it.
    both = [jnp.stack(pair, axis=1) for pair in zip(pyramid(k), jax.lax.stop_gradient(fakes), strict=True)]
    logits = multiscale(discriminator, params, [x.reshape(-1, *x.shape[2:]) for x in both])
    logits = [x.reshape(-1, 2, *x.shape[1:]) for x in logits]
    real_logits, fake_logits = ([x[:, i] for x in logits] for i in (0, 1))
    fake = losses.weighted_mean(losses.multiscale_gan(gan.fake, fake_logits), counted)
    real = jnp.mean(losses.multiscale_gan(gan.real, real_logits))
    penalty = lazy_penalty(discriminator, config.gradient_penalty, params, step, k, fakes[-1], alpha)
    loss = 0.5 * (fake + real) + penalty
    metrics = {"loss_d": loss, "d_fake": fake, "d_real": real, "gradient_penalty": penalty}
    return loss, metrics | {"d_auc": domain_auc(real_logits, fake_logits)}


def lazy_penalty(
    discriminator: nn.Module,
    config: ConfigDict,
    params: states.Params,
    step: Array,
    k: Array,
    fake: Array,
    alpha: Array,
) -> Array:
    """λ · `every` · mean penalty in one step of `every`, zero in the others; at full resolution only."""
    if not config.weight:
        return jnp.zeros(())

    exact = discriminator.clone(dtype=jnp.float32)

    @jax.default_matmul_precision("highest")  # a second derivative, of squares: not for bfloat16 or TF32
    def penalty(params):
        values = losses.gradient_penalty(lambda x: exact.apply(params, x, train=True), k, fake, alpha)
        return config.weight * config.every * jnp.mean(values)

    if config.every == 1:
        return penalty(params)
    return jax.lax.cond(step % config.every == 0, penalty, lambda params: jnp.zeros(()), params)


def generator_loss(
    config: ConfigDict,
    content: Content,
    frozen: Mapping,
    logits: Sequence[Array],
    fakes: Sequence[Array],
    inputs: Sequence[Array],
    counted: Array | None,
) -> tuple[Array, dict[str, Array]]:
    """Adversarial + λ_rec · content, and its parts."""
    adversarial = losses.multiscale_gan(losses.GAN_LOSSES[config.gan_loss].generator, logits)
    kept = sum(content(frozen, x, y) for x, y in zip(fakes, inputs, strict=True))
    adversarial, kept = (losses.weighted_mean(x, counted) for x in (adversarial, kept))
    loss = adversarial + config.content.weight * kept
    return loss, {"loss_g": loss, "g_adversarial": adversarial, "g_content": kept}


def domain_auc(real_logits: Sequence[Array], fake_logits: Sequence[Array]) -> Array:
    """Share of (real, fake) image pairs that D ranks rightly: 1 = tells them apart, 0.5 = cannot (Mann–Whitney)."""
    real, fake = (sum(losses.per_image(x) for x in logits) for logits in (real_logits, fake_logits))
    return jnp.mean(jnp.where(real[:, None] == fake[None], 0.5, real[:, None] > fake[None]))
