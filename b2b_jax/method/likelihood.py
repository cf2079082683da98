"""The camera by likelihood: how often each shot of a bank is taken, from what each blurry photo says of them all.

    1. R learns to score photos against shots, on sharp photos under random shots of the bank:
       descends  -log softmax_j(R(C(s, shot_i), shot_j))_i    over the shots of a batch
    2. On a blurry photo y the score is log p(y | shot) + c(y). The weights of the shots that make all the blurry
       photos together most likely are found by expectation and maximisation:
       w <- mean over y of  w p(y | shot) / Σ w p(y | shot)

    3. If the camera may over-sharpen, a second network learns from the same photos how much each was sharpened
       (`models.sharpening`). Every shot gets the sharpening that all blurry photos together make likeliest.

The two piles are never compared, so it does not matter that they show different things. Weights by maximum likelihood
over a list: Kiefer and Wolfowitz, "Consistency of the maximum likelihood estimator in the presence of infinitely many
incidental parameters", 1956. Making a photo blurry takes longer than learning from it, so lessons are kept in the state
and taken up again. Images are NHWC float32 in [0, 1].
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from b2b_jax.method import augment
from b2b_jax.models.camera import Shot, photographed, taken
from b2b_jax.models.reader import Reader
from b2b_jax.models.sharpening import SharpeningReader, kind
from b2b_jax.training import state as states
from b2b_jax.training.state import State

Array = jax.Array
KEPT = jnp.float16  # of features: few digits of them matter


class Likelihood(NamedTuple):
    """What a step is made of besides its state and photos."""

    reader: Reader
    sharpening: SharpeningReader | None  # None: the camera does not sharpen
    optimizers: Mapping[str, optax.GradientTransformation]  # of "reader" and "sharpening"
    config: ConfigDict  # the section `camera.bank`


def init(method: Likelihood, shot: Shot, key: Array) -> State:
    """A fresh state; `shot` is the bank."""
    reader, kept = method.reader, method.config.kept
    photo = jnp.zeros((1, reader.window, reader.window, 3))
    params = reader.init(key, photo, taken(shot, jnp.arange(1)))
    width = jax.eval_shape(lambda: reader.apply(params, photo, method="features")).shape[-1]
    memory = {"features": jnp.zeros((kept, width), KEPT), "shots": jnp.zeros((kept,), jnp.int32)}
    networks = {"reader": params}
    if method.sharpening:
        networks["sharpening"] = method.sharpening.init(jax.random.fold_in(key, 1), photo)
    return states.create(networks, method.optimizers).replace(memory=memory)


def make_step(method: Likelihood) -> Callable:
    """Returns step(state, frozen, batch, key) -> (state, metrics).

    `batch` holds uint8 `unknown_sharp`, the reader's window and the bank's reach on each side; `frozen["bank"]` is
    the bank's Shot.
    """

    def step(state: State, frozen: Mapping, batch: Mapping[str, Array], key: Array) -> tuple[State, dict]:
        key_new, key_old, key_dropout = jax.random.split(jax.random.fold_in(key, state.step), 3)
        blurry, taught = lessons(frozen["bank"], augment.to_float(batch["unknown_sharp"]), key_new)
        state, filled = remembered(state, method.reader.apply({}, blurry, method="features"), taught)
        chosen = jax.random.randint(key_old, (method.config.batch,), 0, filled)
        features, numbers = state.memory["features"][chosen].astype(jnp.float32), state.memory["shots"][chosen]
        shot, variables = taken(frozen["bank"], numbers), state.params["reader"]

        def objective(params: states.Params) -> tuple[Array, Mapping]:
            trained, rngs = {**variables, "params": params}, {"dropout": key_dropout}
            options = {"train": True, "rngs": rngs, "mutable": ["batch_stats"], "method": "scores"}
            scores, moved = method.reader.apply(trained, features, shot, **options)
            return contrast(scores, numbers), moved

        (loss, moved), gradients = jax.value_and_grad(objective, has_aux=True)(variables["params"])
        new = states.updated_beside(state, "reader", gradients, moved, method.optimizers["reader"])
        metrics = {"loss": loss}
        if method.sharpening:
            shot, key = taken(frozen["bank"], taught), jax.random.fold_in(key_new, 1)
            new, metrics["loss_sharpening"] = taught_sharpening(method, new, blurry, shot, key)
        return states.finished(new, state), metrics

    return step


def taught_sharpening(method: Likelihood, state: State, photos: Array, shot: Shot, key: Array) -> tuple[State, Array]:
    """The state with a step of the network that reads sharpening, on windows of photos (n, h, w, 3), and its loss."""
    config, (key_cut, key_dropout) = method.config.sharpening, jax.random.split(key)
    side = min(config.window, *photos.shape[1:3])
    windows = cut(key_cut, photos, config.windows, side)
    kinds = jnp.repeat(kind(shot.amount, shot.sigma), config.windows)

    def objective(params: states.Params) -> Array:
        logits = method.sharpening.apply(params, windows, train=True, rngs={"dropout": key_dropout})
        return optax.softmax_cross_entropy_with_integer_labels(logits, kinds).mean()

    loss, gradients = jax.value_and_grad(objective)(state.params["sharpening"])
    return states.updated(state, "sharpening", gradients, method.optimizers["sharpening"]), loss


def cut(key: Array, photos: Array, count: int, side: int) -> Array:
    """`count` windows anywhere in each of the photos (n, h, w, 3): (n count, side, side, 3)."""
    bounds = jnp.asarray(photos.shape[1:3]) - side + 1
    starts = jax.random.randint(key, (len(photos), count, 2), 0, bounds)
    one = lambda photo, at: jax.lax.dynamic_slice(photo, (*at, 0), (side, side, 3))  # noqa: E731
    return jax.vmap(jax.vmap(one, (None, 0)))(photos, starts).reshape(-1, side, side, 3)


def lessons(bank: Shot, sharp: Array, key: Array) -> tuple[Array, Array]:
    """Sharp photos (n, h, w, 3) under random shots of the bank, in 8 bits, and the shots' numbers (n,)."""
    key_turn, key_shot, key_noise = jax.random.split(key, 3)
    (sharp,) = augment.dihedral(key_turn, [sharp])  # the photo turns, not its blur
    numbers = jax.random.randint(key_shot, (len(sharp),), 0, len(bank.kernel))
    return photographed(sharp, taken(bank, numbers), key_noise), numbers


def remembered(state: State, features: Array, numbers: Array) -> tuple[State, Array]:
    """The state with these lessons in place of its oldest ones, and how many it holds."""
    kept, count = len(state.memory["shots"]), len(numbers)
    places = (state.step * count + jnp.arange(count)) % kept
    memory = {
        "features": state.memory["features"].at[places].set(features.astype(KEPT)),
        "shots": state.memory["shots"].at[places].set(numbers),
    }
    return state.replace(memory=memory), jnp.minimum((state.step + 1) * count, kept)


def contrast(scores: Array, numbers: Array) -> Array:
    """Mean cross-entropy of scores (n, n), whose diagonal is right; a shot that is there twice is no wrong answer."""
    twice = (numbers[:, None] == numbers) & ~jnp.eye(len(numbers), dtype=bool)
    scores = jnp.where(twice, -jnp.inf, scores)
    return optax.softmax_cross_entropy_with_integer_labels(scores, jnp.arange(len(scores))).mean()


def weights(scores: Array, temper: float, iterations: int) -> Array:
    """How often each of m shots is taken (m,), of sum 1, from the scores (n, m) of n photos.

    temper: factor of the scores: photos of other scenes are read less surely than those that the reader learnt from.
    iterations: few keep the weights smooth; many leave one shot for each photo.
    """
    likelihood = jax.nn.softmax(temper * scores, axis=1)

    def improved(weight: Array, _: None) -> tuple[Array, None]:
        shares = likelihood * weight
        return (shares / shares.sum(1, keepdims=True)).mean(0), None

    even = jnp.full(scores.shape[1], 1 / scores.shape[1])
    return jax.lax.scan(improved, even, length=iterations)[0]
