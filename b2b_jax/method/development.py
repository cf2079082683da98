"""Pairs to learn how a camera's processing is undone: what it stores of a photo, and what its lens alone makes of it.

    (noise and JPEG of sharpen(s ∗ k), s ∗ k)      of sharp photos s under random shots of the learnt camera

A filter by Wiener (`models.development`) weighs frequencies alone; a network also knows what photos look like, and what
JPEG leaves of them. Images are NHWC float32 in [0, 1].
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from b2b_jax.method import augment, camera_model
from b2b_jax.method.supervised import MakePairs
from b2b_jax.models.camera import Camera, Shot, photographed, render

Array = jax.Array


def make_pairs(camera: Camera, threshold: float, turned: bool) -> MakePairs:
    """Pairs from uint8 `unknown_sharp`, crops larger by the camera's reach.

    Args:
        camera: its weights are `frozen["camera"]`, an argument of the step.
        threshold: of its kernels, see `camera_model.cleaned`.
        turned: whether photos are turned and mirrored, before they are blurred.
    """

    def pairs(frozen: Mapping, batch: Mapping[str, Array], key: Array) -> tuple[Array, Array]:
        key_turn, key_shot, key_noise = jax.random.split(key, 3)
        sharp = augment.to_float(batch["unknown_sharp"])
        (sharp,) = augment.dihedral(key_turn, [sharp]) if turned else [sharp]
        shot = camera_model.draw(camera, frozen["camera"], len(sharp), key_shot, threshold)
        return processed(sharp, shot, key_noise)

    return pairs


def processed(sharp: Array, shot: Shot, key: Array) -> tuple[Array, Array]:
    """What the camera stores of sharp photos, larger by its reach, and the same by its lens alone, aligned."""
    stored, seen = photographed(sharp, shot, key), render(sharp, lens(shot), key)
    (h, w), margin = stored.shape[1:3], (seen.shape[1] - stored.shape[1]) // 2
    return stored, seen[:, margin : margin + h, margin : margin + w]


def lens(shot: Shot) -> Shot:
    """The shot without what the camera does behind its lens."""
    return shot._replace(amount=None, sigma=None, noise=None, quality=None)


def processes(shot: Shot) -> bool:
    """Whether any of the shots sharpens, adds noise or compresses."""
    return shot.quality is not None or any(part is not None and jnp.any(part > 0) for part in (shot.amount, shot.noise))
