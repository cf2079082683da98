"""CycleGAN and DualGAN as unpaired deblurrers, the rivals of the paper's table 2: one step, two sets of rules.

    b: blurry photo of the camera             s: sharp photo of it, of another scene
    G: blurry to sharp, the deblurrer         F: sharp to blurry         D_S, D_B: do photos belong to either pile?

    1. D_S descends     real(D_S(s)) + fake(D_S(G(b))), D_B likewise with b and F(s): `critics` times, on new photos
    2. G and F descend  gen(D_S(G(b))) + gen(D_B(F(s))) + λ (|F(G(b)) - b| + |G(F(s)) - s|)
                        + λ_id (|G(s) - s| + |F(b) - b|)

CycleGAN: Zhu et al., ICCV 2017, arXiv 1703.10593; its discriminators see fakes of earlier steps, too (section 4).
DualGAN: Yi et al., ICCV 2017, arXiv 1704.02510; its discriminators are Wasserstein critics with clipped weights
(algorithm 1). Images are NHWC float32 in [0, 1]; L1 is measured in [-1, 1], where both are published.
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
from b2b_jax.losses import GANLoss
from b2b_jax.method import augment
from b2b_jax.method.adversarial import domain_auc
from b2b_jax.training import state as states
from b2b_jax.training.state import Params, State

Array = jax.Array
Pool = Mapping[str, Array]  # "images" (k, h, w, 3) and "count", how many of them are there

GENERATORS = ("to_sharp", "to_blurry")  # G and F
DISCRIMINATORS = {"d_sharp": "s", "d_blurry": "b"}  # D_S and D_B, and the field of Photos that each takes as real


class Rules(NamedTuple):
    """What sets one method apart from the other, besides its settings."""

    gan: GANLoss
    updated: bool  # whether the generators face the discriminators after their update, or those before it


RULES = {
    # Least squares; "we divide the objective by 2 while optimizing D". All four networks descend at once.
    "cyclegan": Rules(GANLoss(lambda x: 0.5 * (x - 1) ** 2, lambda x: 0.5 * x**2, lambda x: (x - 1) ** 2), False),
    "dualgan": Rules(losses.GAN_LOSSES["wasserstein"], True),
}


class Cycle(NamedTuple):
    """What a step is made of besides its state and photos."""

    networks: Mapping[str, nn.Module]  # GENERATORS and DISCRIMINATORS
    optimizer: optax.GradientTransformation  # of each network for itself
    config: ConfigDict  # the section `cycle`


class Photos(NamedTuple):
    """Photos of both piles, or fakes of them: F(s) in the place of b, G(b) in the place of s."""

    b: Array  # (n, h, w, 3)
    s: Array  # (n, h, w, 3)


class Round(NamedTuple):
    """What one update sees."""

    photos: Photos
    fakes: Photos
    key: Array  # of the pool, and of dropout


def init(method: Cycle, key: Array) -> State:
    """A fresh state for crops of `config.crop` pixels, its pools empty."""
    config, networks = method.config, enumerate(method.networks.items())
    image = jnp.zeros((1, config.crop, config.crop, 3))
    params = {name: network.init(jax.random.fold_in(key, i), image) for i, (name, network) in networks}
    optimizers = dict.fromkeys(params, method.optimizer)
    state = states.create(params, optimizers, ("to_sharp",) if config.ema else ())
    return state.replace(memory={name: empty_pool(config) for name in DISCRIMINATORS} if config.pool else {})


def make_step(method: Cycle) -> Callable:
    """Returns step(state, frozen, batch, key) -> (state, metrics).

    `batch` holds uint8 `unknown_blur` and `unknown_sharp` (critics · n, crop, crop, 3); `frozen` is empty.
    """

    def step(state: State, frozen: Mapping, batch: Mapping[str, Array], key: Array) -> tuple[State, dict]:
        key_photos, key = jax.random.split(jax.random.fold_in(key, state.step))
        b, s = (augment.to_float(batch[name]) for name in ("unknown_blur", "unknown_sharp"))
        if method.config.augment:
            b, s = (augment.mirror(jax.random.fold_in(key_photos, i), [x])[0] for i, x in enumerate((b, s)))
        new, metrics = update(method, state, parts(Photos(b, s), method.config.critics), key)
        return states.finished(new, state, method.config.ema), metrics

    return step


def parts(photos: Photos, count: int) -> list[Photos]:
    """The photos of every critic's update: each device that holds some of the batch has its share of all of them."""
    return [Photos(*(x[i::count] for x in photos)) for i in range(count)]


def update(method: Cycle, state: State, photos: Sequence[Photos], key: Array) -> tuple[State, dict[str, Array]]:
    """The algorithm above: the discriminators once for each of `photos`, the generators on the last of them."""
    new, generators = state, {name: state.params[name] for name in GENERATORS}
    for i, piles in enumerate(photos):
        key_round = jax.random.fold_in(key, i)
        # G(b) and F(s), once: they serve both updates
        fakes, fakes_vjp = jax.vjp(partial(imagine, method, photos=piles, key=key_round), generators)
        new, metrics_d = update_discriminators(method, new, Round(piles, fakes, key_round))

    judges = new.params if RULES[method.config.kind].updated else state.params

    def loss_g(params: Mapping[str, Params], fakes: Photos) -> tuple[Array, dict[str, Array]]:
        return generator_loss(method, params, judges, Round(piles, fakes, key_round))

    (direct, cotangents), metrics_g = jax.grad(loss_g, argnums=(0, 1), has_aux=True)(generators, fakes)
    gradients = jax.tree.map(jnp.add, direct, *fakes_vjp(cotangents))
    for name in GENERATORS:
        new = states.updated(new, name, gradients[name], method.optimizer)
    return new, metrics_d | metrics_g


# ------------------------------------------------------------------------------------------------------- discriminators


def update_discriminators(method: Cycle, state: State, seen: Round) -> tuple[State, dict[str, Array]]:
    """1. Both discriminators one optimiser step on, and clipped where the config asks for it."""
    found = {}
    for i, (name, field) in enumerate(DISCRIMINATORS.items()):
        real, fake = getattr(seen.photos, field), getattr(seen.fakes, field)
        if method.config.pool:
            pool, fake = exchanged(state.memory[name], fake, jax.random.fold_in(seen.key, 10 + i))
            state = state.replace(memory={**state.memory, name: pool})
        state, found[name] = update_discriminator(method, state, name, real, fake)
    metrics = {key: found["d_sharp"][key] + found["d_blurry"][key] for key in ("loss_d", "d_real", "d_fake")}
    return state, metrics | {"d_auc": found["d_sharp"]["d_auc"]}


def update_discriminator(
    method: Cycle, state: State, name: str, real: Array, fake: Array
) -> tuple[State, dict[str, Array]]:
    """One of them, on photos (n, h, w, 3)."""
    gan, network = RULES[method.config.kind].gan, method.networks[name]

    def loss(params: Params) -> tuple[Array, dict[str, Array]]:
        real_logits, fake_logits = network.apply(params, real), network.apply(params, fake)
        loss_real, loss_fake = jnp.mean(gan.real(real_logits)), jnp.mean(gan.fake(fake_logits))
        metrics = {"loss_d": loss_real + loss_fake, "d_real": loss_real, "d_fake": loss_fake}
        return metrics["loss_d"], metrics | {"d_auc": domain_auc([real_logits], [fake_logits])}

    gradients, metrics = jax.grad(loss, has_aux=True)(state.params[name])
    state = states.updated(state, name, gradients, method.optimizer)
    clip = method.config.clip
    if clip:
        clipped = jax.tree.map(lambda x: jnp.clip(x, -clip, clip), state.params[name])
        state = state.replace(params={**state.params, name: clipped})
    return state, metrics


# ----------------------------------------------------------------------------------------------------------- generators


def generator_loss(
    method: Cycle, params: Mapping[str, Params], judges: Mapping[str, Params], seen: Round
) -> tuple[Array, dict[str, Array]]:
    """2. Adversarial + λ · cycle + λ_id · identity over both directions, and its parts; `judges`: of D_S and D_B."""
    gan, config, (photos, fakes, key) = RULES[method.config.kind].gan, method.config, seen
    back = imagine(method, params, fakes, jax.random.fold_in(key, 1))  # Photos(F(G(b)), G(F(s)))
    logits = [method.networks[name].apply(judges[name], getattr(fakes, of)) for name, of in DISCRIMINATORS.items()]
    metrics = {
        "g_adversarial": sum(jnp.mean(gan.generator(x)) for x in logits),
        "g_cycle": distance(back, photos),
    }
    value = metrics["g_adversarial"] + config.cycle_weight * metrics["g_cycle"]
    if config.identity_weight:
        crossed = imagine(method, params, Photos(photos.s, photos.b), jax.random.fold_in(key, 2))  # Photos(F(b), G(s))
        metrics["g_identity"] = distance(crossed, photos)
        value += config.identity_weight * metrics["g_identity"]
    return value, metrics | {"loss_g": value}


def imagine(method: Cycle, params: Mapping[str, Params], photos: Photos, key: Array) -> Photos:
    """Photos(F(s), G(b)): what imitates blurry photos, and what imitates sharp ones; dropout follows the key."""

    def made(name: str, x: Array, number: int) -> Array:
        rngs = {"dropout": jax.random.fold_in(key, number)}
        return method.networks[name].apply(params[name], x, train=True, rngs=rngs).astype(jnp.float32)

    return Photos(b=made("to_blurry", photos.s, 3), s=made("to_sharp", photos.b, 4))


def distance(x: Photos, y: Photos) -> Array:
    """The mean absolute difference in [-1, 1], summed over both piles."""
    return 2 * sum(jnp.mean(losses.l1(a, b)) for a, b in zip(x, y, strict=True))


# ----------------------------------------------------------------------------------------------------------------- pool


def empty_pool(config: ConfigDict) -> Pool:
    """Room for `config.pool` images."""
    return {
        "images": jnp.zeros((config.pool, config.crop, config.crop, 3)),
        "count": jnp.zeros((), jnp.int32),
    }


def exchanged(pool: Pool, new: Array, key: Array) -> tuple[Pool, Array]:
    """Images (n, h, w, 3) through the pool: the pool after it, and the images that the discriminator gets.

    As long as there is room an image enters it and is returned; then, in half of the cases, it takes the place of a
    random earlier one, which is returned for it (Shrivastava et al., CVPR 2017, as CycleGAN does).
    """
    size = len(pool["images"])

    def one(pool: Pool, image_and_key: tuple[Array, Array]) -> tuple[Pool, Array]:
        image, (key_place, key_coin) = image_and_key[0], jax.random.split(image_and_key[1])
        room = pool["count"] < size
        place = jnp.where(room, pool["count"], jax.random.randint(key_place, (), 0, size))
        swap = ~room & jax.random.bernoulli(key_coin)
        old = pool["images"][place]
        images = pool["images"].at[place].set(jnp.where(room | swap, image, old))
        return {"images": images, "count": jnp.minimum(pool["count"] + 1, size)}, jnp.where(swap, old, image)

    return jax.lax.scan(one, pool, (new, jax.random.split(key, len(new))))
