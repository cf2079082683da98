"""How much of the learnt camera helps the deblurrer, tried on photos that the camera makes, whose truth is known.

Filling only helps where the camera's blur is foreign to the deblurrer, and agreement with the photo only where the
camera's kernels are right. The shot that made a photo is left out of those that may explain it, as the true one is not
in the list either. Even so, such photos flatter the camera, so using more of it has to be better by two standard errors
of the photos. They are made of few sharp ones, which are held out of the camera, so that other photos may differ more.
The step towards agreement of a deblurrer that was adapted to the camera is chosen in the same way; that deblurrer has
seen these sharp ones, under other shots.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from b2b_jax import metrics, networks, sharding, terminal
from b2b_jax.errors import UserError
from b2b_jax.files import write_json
from b2b_jax.method import camera_model
from b2b_jax.models.bank import Bank, shots_of
from b2b_jax.models.camera import taken
from b2b_jax.models.consistent import STEPS, WAYS
from b2b_jax.models.kernel_mixture import KernelMixture
from b2b_jax.networks import Network
from b2b_jax.stages import camera, camera_photos, common
from b2b_jax.stages.run import Run
from b2b_jax.training.state import Params

PHOTOS = 16  # to try ways on, which may run a network as large as MAXIM three times
ADAPTED_PHOTOS = 64  # to try steps on; a few photos lose several dB, so that 16 often choose too short a step
SURE = 2.0  # standard errors by which using more of the camera has to be better

Choice = TypeVar("Choice", bound=Hashable)


def choose_way(run: Run, hyper: Mapping, variables: Params) -> tuple[str, float]:
    """The best of WAYS, rule and step, for the run's deblurrer on photos of its learnt camera; see `surest`.

    hyper, variables: the kernel mixture's.
    """
    mixture = Network(common.create(ConfigDict(hyper), jnp.float32), variables)
    scores = tried(run, networks.consistent(mixture, run.network("deblurrer")), WAYS, PHOTOS)
    rule, step = best = surest(scores)
    if sharding.is_first():
        means = {_named(*way): _mean(score) for way, score in scores.items()}
        write_json(run.workdir / "kernel_field" / "scores.json", {"rule": rule, "step": step, "psnr": means})
        print(f"kernel_field: chose {_named(*best)}{_why(means, scores)}")
    return best


def choose_step(run: Run, adapted: Network) -> float:
    """The best step, 0 or of STEPS, from the adapted deblurrer's result towards agreement; see `surest`."""
    held = networks.held(run.network("kernel_field"), adapted, 1.0)
    scores = tried(run, held, (0.0, *STEPS), ADAPTED_PHOTOS)
    best = surest(scores)
    if sharding.is_first():
        means = {str(step): _mean(score) for step, score in scores.items()}
        write_json(run.workdir / "adaptation" / "agreement.json", {"step": best, "psnr": means})
        print(f"adaptation: chose step {best} towards agreement{_why(means, scores)}")
    return best


def _named(rule: str, step: float) -> str:
    return f"{rule} {step}" if step else rule


def _mean(score: np.ndarray) -> float | None:
    """Of the finite scores; None where there is none."""
    return float(np.mean(score[np.isfinite(score)])) if np.isfinite(score).any() else None


def _why(means: Mapping[str, float | None], scores: Mapping[Choice, np.ndarray]) -> str:
    if not comparable(scores):
        return "; fewer than two photos of the learnt camera have finite scores to compare"
    told = {name: "no finite score" if mean is None else f"{mean:.2f} dB" for name, mean in means.items()}
    return f" on photos made by the learnt camera: {', '.join(f'{name} {mean}' for name, mean in told.items())}"


def tried(run: Run, network: Network, ways: Sequence[Choice], count: int) -> dict[Choice, np.ndarray]:
    """PSNR (count,) of each of the `ways` that the network's method `each` tries, on photos of the learnt camera."""
    module, weights = network

    @jax.jit
    def results(weights: Params, photo: jax.Array, number: jax.Array) -> jax.Array:
        shares = without(module.apply(weights, photo, method=lambda self, x: self.mixture.shares(x)), number)
        return module.apply(weights, photo, shares, method="each")[:, 0]

    blurry, sharp, numbers = photos(run, count)
    turns = terminal.bar(range(count), desc="trying the camera", unit="photo", leave=False)
    restored = np.stack([np.asarray(results(weights, blurry[i : i + 1], numbers[i])) for i in turns], axis=1)
    return {way: metrics.psnr(metrics.round8(x), sharp) for way, x in zip(ways, restored, strict=True)}


def knows_kernels(run: Run) -> bool:
    """True when the run's kernel field can tell which kernels may have blurred a photo, as agreement needs."""
    there = run.config.kernel_field.enabled and run.trained("kernel_field")
    return there and isinstance(run.network("kernel_field").module, KernelMixture)


def unlike(run: Run) -> str:
    """How the run's camera differs from the one that its kernel mixture was made of; "" where it does not."""
    module, count = camera.load(run).module, run.network("kernel_field").module.count
    if not isinstance(module, Bank):
        return "the camera was not learnt by likelihood, as that of the kernel field was"
    return "" if module.count == count else f"the camera has {module.count} shots, that of the kernel field {count}"


def check(run: Run) -> None:
    """UserError when a step is to be chosen by what is given, a kernel mixture and a camera, and they do not fit."""
    if not (run.config.camera.weights and knows_kernels(run)):
        return
    if told := unlike(run):
        files = {name: run.weights_path(name) for name in ("kernel_field", "camera")}
        found = ", ".join(f"{name}.weights is {path}" for name, path in files.items())
        raise UserError(f"{found}: {told}; give those of one run")
    camera_photos.check_unseen(run, camera.load(run).module.reach)


def surest(scores: Mapping[Choice, np.ndarray]) -> Choice:
    """Of choices in order of how much they use, one whose scores (n,) no later one exceeds by SURE standard errors.

    Photos of which a score is not finite are left out; where fewer than two remain, the one that uses less is chosen.
    """
    best, *others = scores
    for other in others:
        gain = gains(scores[best], scores[other])
        if len(gain) > 1 and gain.mean() > SURE * gain.std(ddof=1) / np.sqrt(len(gain)):
            best = other
    return best


def gains(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What photos gain by their scores (n,) before and after, where both are finite: (m,)."""
    both = np.isfinite(before) & np.isfinite(after)
    return after[both] - before[both]


def comparable(scores: Mapping[Choice, np.ndarray]) -> bool:
    """Whether any choice can be compared with the first."""
    first, *others = scores.values()
    return any(len(gains(first, other)) > 1 for other in others)


def without(shares: jax.Array, number: jax.Array) -> jax.Array:
    """Shares (n, count), as if this shot were not in the list; where it has all, the others have equal ones.

    The only shot of a camera stays.
    """
    if shares.shape[-1] == 1:
        return shares
    others, even = (x.at[:, number].set(0) for x in (shares, jnp.ones_like(shares)))
    others = jnp.where(others.sum(-1, keepdims=True) > 0, others, even)
    return others / others.sum(-1, keepdims=True)


def photos(run: Run, count: int) -> tuple[jax.Array, np.ndarray, jax.Array]:
    """Photos of the learnt camera (count, h, w, 3) of sharp ones held out of it, these, and the numbers of their shots.

    count: at most camera_photos.CROPS.
    """
    module, variables = camera.load(run)
    weight = variables["params"]["weight"]
    key_shot, key_noise = jax.random.split(jax.random.key(run.config.seed))
    numbers = jax.random.choice(key_shot, len(weight), (count,), p=weight / weight.sum())
    shot = camera_model.aligned(taken(shots_of(variables), numbers), run.config.camera.threshold)
    sharp = camera_photos.unseen(run, module.reach).sharp[:count]
    return *camera_model.paired(sharp, shot, module.reach, key_noise), numbers
