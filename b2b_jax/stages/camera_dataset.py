"""The paired dataset that the camera never had: its sharp photos, whole, and what the learnt camera makes of them.

Laid out as GoPro is, so that any trainer of deblurring networks reads it: {train,test}/camera/{blur,sharp}/NNNNNN.png.
Photos of the test part are no photos of the training part, not even in place of bad ones.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from b2b_jax import levels
from b2b_jax.data.skipping import apart
from b2b_jax.data.sources import Source
from b2b_jax.errors import UserError
from b2b_jax.method import camera_model
from b2b_jax.models.camera import Camera, Shot, photographed
from b2b_jax.stages import camera
from b2b_jax.stages.run import Run

TEST = 1 / 10  # share of the photos that pairs are made of, the last ones, that the test part is made of


class Pair(NamedTuple):
    """One pair of the dataset and how it was made."""

    part: str  # "train" or "test"
    blurry: np.ndarray  # uint8 (h, w, 3)
    sharp: np.ndarray  # uint8 (h, w, 3)
    shot: dict  # the sharp photo's name and what the camera did to it, for JSON
    kernel: np.ndarray | None  # (k, k)


def photograph(run: Run, count: int) -> Iterator[Pair]:
    """Yields `count` pairs, of the sharp photos in turn.

    The i-th depends on the run's seed, its camera, the count and i alone.
    """
    learnt, key = camera.load(run), jax.random.key(run.config.seed)
    shoot = shooter(learnt.module, run.config.camera.threshold)
    parts = divided(run.unknown.sharp, count)
    photos = [(name, part, number) for name, part in parts.items() for number in range(len(part))]
    for index in range(count):
        name, part, number = photos[index % len(photos)]
        record = part[number]
        blurry, shot = jax.device_get(
            shoot(learnt.variables, levels.to_float(record["image"]), jax.random.fold_in(key, index))
        )
        yield Pair(
            name, levels.to_uint8(blurry), record["image"], {"photo": record["name"]} | figures(shot), shot.kernel
        )


def divided(photos: Source, count: int) -> dict[str, Source]:
    """The first `count` photos, or all, by part; a bad one is replaced by a photo of its own part.

    The test part has at least one photo, and more where those would all be bad.
    """
    used, _ = apart(photos, max(0, len(photos) - count))
    held_out = max(1, round(TEST * len(used)))
    while held_out < len(used) and not has_photos(apart(used, held_out)[1]):
        held_out += 1
    return dict(zip(("train", "test"), apart(used, held_out), strict=True))


def has_photos(source: Source) -> bool:
    """Whether not all of them are bad and skipped."""
    try:
        source[0]
    except UserError:
        return False
    return True


def shooter(module: Camera, threshold: float) -> Callable:
    """A function of the camera's weights, a photo (h, w, 3) in [0, 1] and a key: its photo of that size, and the shot.

    It is what the trainings see, noise and JPEG included. The borders are mirrored for what the blur brings in from
    outside.
    """

    @jax.jit
    def shoot(variables, photo, key):
        key_shot, key_noise = jax.random.split(key)
        shot = camera_model.draw(module, variables, 1, key_shot, threshold)
        padded = jnp.pad(photo, [(module.reach, module.reach)] * 2 + [(0, 0)], "reflect")
        blurry = photographed(padded[None], shot, key_noise)[0]
        return blurry, jax.tree.map(lambda x: x[0] if x.ndim else x, shot)

    return shoot


def figures(shot: Shot) -> dict[str, float]:
    """What the camera did to one photo, but for the kernel."""
    return {name: float(value) for name, value in shot._asdict().items() if value is not None and name != "kernel"}
