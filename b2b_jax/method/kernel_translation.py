"""Teaching a kernel field: photos as the camera takes them, and the filling kernel that each of them needs.

    y = C(s, k) of a sharp photo s        loss = cross-entropy(softmax(G(y)), h(k))        k * h(k): a known blur

The camera's kernels k are those of its learnt model, or given. `lessons` are made once, before training.
Images are NHWC float32 in [0, 1].
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from b2b_jax.method import augment
from b2b_jax.method.filling import Filling, fill
from b2b_jax.models.camera import Shot, photographed, sharpener, taken
from b2b_jax.models.kernel_field import KernelField
from b2b_jax.training import state as states
from b2b_jax.training.state import State

Array = jax.Array
AT_ONCE = 256  # kernels that are filled at once: bounds the memory


class Lessons(NamedTuple):
    """Shots of the camera, and what each of them needs."""

    shot: Shot  # of n photos
    filling: Array  # (n, size, size)


def lessons(shot: Shot, known: Array, filling: Filling) -> Lessons:
    """The filling kernels of `shot`, whose kernel is there, towards the `known` kernels (m, j, j)."""
    whole = effective(shot)
    # `known` is an argument: of a constant the compiler would compute the spectra itself, for minutes.
    solve = jax.jit(fill, static_argnames="filling")
    parts = [solve(whole[i : i + AT_ONCE], known, filling=filling) for i in range(0, len(whole), AT_ONCE)]
    return Lessons(shot, jnp.concatenate(parts))


def effective(shot: Shot) -> Array:
    """Kernels (n, k, k) of all that a shot convolves with: its blur and its sharpening, of any sign and of sum 1."""
    if shot.amount is None:
        return shot.kernel
    mask = sharpener(shot.amount, shot.sigma)
    return jax.vmap(lambda a, b: jax.scipy.signal.convolve2d(a, b, mode="full"))(shot.kernel, mask)


def init(network: KernelField, optimizer: optax.GradientTransformation, ema: float, key: Array) -> State:
    """A fresh state."""
    params = network.init(key, jnp.zeros((1, network.window, network.window, 3)))
    return states.create({"generator": params}, {"generator": optimizer}, ("generator",) if ema else ())


def make_step(network: KernelField, optimizer: optax.GradientTransformation, config: ConfigDict) -> Callable:
    """Returns step(state, frozen, batch, key) -> (state, metrics).

    `batch` holds uint8 `unknown_sharp`, the network's window and the camera's reach on each side; `frozen["lessons"]`
    are Lessons. `config` has `augment` and `ema`.
    """

    def step(state: State, frozen: Mapping, batch: Mapping[str, Array], key: Array) -> tuple[State, dict]:
        photos, wanted = taught(frozen["lessons"], batch["unknown_sharp"], jax.random.fold_in(key, state.step), config)

        variables = state.params["generator"]
        features, statistics = network.apply({}, photos, method="features"), [k for k in variables if k != "params"]

        def objective(params: states.Params) -> tuple[Array, tuple]:
            trained = {**variables, "params": params}
            logits, moved = network.apply(trained, features, train=True, mutable=statistics, method="logits")
            answers = wanted.reshape(len(wanted), -1)
            overlap = jnp.minimum(jax.nn.softmax(logits), answers).sum(-1)
            return optax.softmax_cross_entropy(logits, answers).mean(), (overlap.mean(), moved)

        (loss, (overlap, moved)), gradients = jax.value_and_grad(objective, has_aux=True)(variables["params"])
        new = states.updated_beside(state, "generator", gradients, moved, optimizer)
        return states.finished(new, state, config.ema), {"loss": loss, "overlap": overlap}

    return step


def taught(lessons: Lessons, sharp: Array, key: Array, config: ConfigDict) -> tuple[Array, Array]:
    """Photos of a random lesson each, rounded to 8 bits, and what they need: (n, h, w, 3) and (n, size, size)."""
    key_turn, key_lesson, key_noise = jax.random.split(key, 3)
    sharp = augment.to_float(sharp)
    if config.augment:  # the photo turns, not its blur
        (sharp,) = augment.dihedral(key_turn, [sharp])
    chosen = jax.random.randint(key_lesson, (len(sharp),), 0, len(lessons.filling))
    return photographed(sharp, taken(lessons.shot, chosen), key_noise), lessons.filling[chosen]
