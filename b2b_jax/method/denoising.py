"""Pairs to learn to take a camera's noise, JPEG and tone curve away: photos with them, and the same without.

    (JPEG of sharpen(((s ** response) ∗ k) ** (1 / response)) + noise, sharpen(s ∗ k))

of sharp photos s under random shots of the learnt camera. A deblurrer that was taught with averages of stored values,
as GoPro's are, knows no other blur than s ∗ k. Sharpening stays: it is a filter, which a division undoes
(`models.development`). Images are NHWC float32 in [0, 1].
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
        return noisy(sharp, camera_model.draw(camera, frozen["camera"], len(sharp), key_shot, threshold), key_noise)

    return pairs


def noisy(sharp: Array, shot: Shot, key: Array) -> tuple[Array, Array]:
    """What the camera stores of sharp photos, larger by its reach, and the same without noise, JPEG and response."""
    return photographed(sharp, shot, key), render(sharp, shot._replace(noise=None, response=None), key)


def needed(shot: Shot) -> bool:
    """Whether there is anything to take away: noise, JPEG or a response."""
    noise = shot.noise is not None and bool(jnp.any(shot.noise > 0))
    return noise or shot.quality is not None or shot.response is not None
