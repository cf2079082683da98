"""Which steps with the learnt camera help the deblurrer, tried on photos that the camera makes, whose truth is known.

Filling only helps where the camera's blur is foreign to the deblurrer, and holding a result to the photo only where the
camera's kernels are right. The shot that made a photo is left out of those that may explain it, as the true one is not
in the list either. Even so, such photos flatter the steps that use the camera, so a step has to be better beyond doubt.
How far the result of a deblurrer that was adapted to the camera is held to the photo is found in the same way.
"""

from collections.abc import Hashable, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from b2b_jax import metrics, networks, sharding
from b2b_jax.files import write_json
from b2b_jax.method import camera_model
from b2b_jax.models.bank import shots_of
from b2b_jax.models.camera import taken
from b2b_jax.models.kernel_mixture import RULES, KernelMixture
from b2b_jax.networks import Network
from b2b_jax.stages import camera, camera_photos, common
from b2b_jax.stages.run import Run
from b2b_jax.training.state import Params

PHOTOS = 16  # that the rules are tried on
SURE = 2.0  # standard errors by which more steps have to be better than fewer
STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of an adapted deblurrer's result, towards agreement

Choice = TypeVar("Choice", bound=Hashable)


def chosen(run: Run, hyper: Mapping, variables: Params) -> str:
    """The rule, of RULES, under which the run's deblurrer restores photos of its learnt camera best beyond doubt."""
    mixture = Network(common.create(ConfigDict(hyper), jnp.float32), variables)
    module, weights = networks.consistent(mixture, run.network("deblurrer"))

    @jax.jit
    def tried(weights: Params, photo: jax.Array, number: jax.Array) -> jax.Array:
        shares = without(module.apply(weights, photo, method=lambda self, x: self.mixture.shares(x)), number)
        return module.apply(weights, photo, shares, method="each")[:, 0]

    blurry, sharp, numbers = photos(run)
    results = np.stack([tried(weights, blurry[i : i + 1], numbers[i]) for i in range(len(blurry))], axis=1)
    scores = {rule: metrics.psnr(metrics.round8(x), sharp) for rule, x in zip(RULES, results, strict=True)}
    best = surest(scores)
    if sharding.is_first():
        means = {rule: float(np.mean(score)) for rule, score in scores.items()}
        write_json(run.workdir / "kernel_field" / "scores.json", {"rule": best, "psnr": means})
        told = ", ".join(f"{rule} {mean:.2f} dB" for rule, mean in means.items())
        print(f"kernel_field: {best}, by photos that the learnt camera makes: {told}")
    return best


def choose_step(run: Run, adapted: Network) -> float:
    """The step, of STEPS, by which the adapted deblurrer's result is best moved towards agreement beyond doubt.

    The run keeps it: `networks.agreed_step`.
    """
    module, weights = networks.held(run.network("kernel_field"), adapted, 1.0)

    @jax.jit
    def tried(weights: Params, photo: jax.Array, number: jax.Array) -> jax.Array:
        shares = without(module.apply(weights, photo, method=lambda self, x: self.mixture.shares(x)), number)
        return module.apply(weights, photo, shares, STEPS, method="stepped")[:, 0]

    blurry, sharp, numbers = photos(run)
    results = np.stack([tried(weights, blurry[i : i + 1], numbers[i]) for i in range(len(blurry))], axis=1)
    scores = {step: metrics.psnr(metrics.round8(x), sharp) for step, x in zip(STEPS, results, strict=True)}
    best = surest(scores)
    if sharding.is_first():
        means = {str(step): float(np.mean(score)) for step, score in scores.items()}
        write_json(run.workdir / networks.AGREEMENT, {"step": best, "psnr": means})
        told = ", ".join(f"{step} {mean:.2f} dB" for step, mean in means.items())
        print(f"adaptation: held to the photo by {best}, by photos that the learnt camera makes: {told}")
    return best


def knows_kernels(run: Run) -> bool:
    """True when the run's kernel field can tell which kernels may have blurred a photo, as agreement needs."""
    there = run.config.kernel_field.enabled and run.trained("kernel_field")
    return there and isinstance(run.network("kernel_field").module, KernelMixture)


def surest(scores: Mapping[Choice, np.ndarray]) -> Choice:
    """The first of these choices whose scores (n,) no later one exceeds by SURE standard errors."""
    best, *others = scores
    for other in others:
        gain = scores[other] - scores[best]
        if gain.mean() > SURE * gain.std(ddof=1) / np.sqrt(len(gain)):
            best = other
    return best


def without(shares: jax.Array, number: jax.Array) -> jax.Array:
    """Shares (n, count) of the other shots, as if this one were not in the list."""
    others = shares.at[:, number].set(0)
    return others / others.sum(-1, keepdims=True)


def photos(run: Run) -> tuple[jax.Array, np.ndarray, jax.Array]:
    """Photos of the learnt camera (n, h, w, 3) of held-out sharp ones, these, and the numbers of their shots."""
    module, variables = camera.load(run)
    weight = variables["params"]["weight"]
    key_shot, key_noise = jax.random.split(jax.random.key(run.config.seed))
    numbers = jax.random.choice(key_shot, len(weight), (PHOTOS,), p=weight / weight.sum())
    shot = camera_model.aligned(taken(shots_of(variables), numbers), run.config.camera.threshold)
    sharp = camera_photos.unseen(run, module.reach).sharp[:PHOTOS]
    return *camera_model.paired(sharp, shot, module.reach, key_noise), numbers
