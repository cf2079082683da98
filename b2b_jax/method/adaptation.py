"""Pairs on which a deblurrer is adapted to a camera, among known pairs.

    blurry, sharp = (C(s, z), s)   of the camera's own sharp photos s: what the learnt camera makes of them,
                    (y, w)         or: its blurry frames y and what sharp ones near by tell of them, data/matching.py,
                                   or a known pair with probability `known`

The known pairs keep what the deblurrer could do before. Images are NHWC float32 in [0, 1].
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from b2b_jax.method import augment, camera_model
from b2b_jax.method.supervised import MakePairs
from b2b_jax.models.camera import Camera

Array = jax.Array


def make_pairs(camera: Camera, threshold: float, config: ConfigDict) -> MakePairs:
    """Pairs from uint8 `unknown_sharp`, crops larger by the reach, and `known_blurry`, `known_sharp` if `config.known`.

    Args:
        camera: its weights are `frozen["camera"]`, an argument of the step.
        threshold: of its kernels, see `camera_model.cleaned`.
        config: the section `adaptation`.
    """

    def pairs(frozen: Mapping, batch: Mapping[str, Array], key: Array) -> tuple[Array, Array]:
        key_turn, key_shot, key_known = jax.random.split(key, 3)
        sharp = augment.to_float(batch["unknown_sharp"])
        if config.augment:  # the photo turns, not its blur: a camera's blur has its directions
            (sharp,) = augment.dihedral(key_turn, [sharp])
        made = camera_model.pairs(camera, frozen["camera"], sharp, key_shot, threshold)
        if not config.known:
            return made
        known = augment.to_float(batch["known_blurry"]), augment.to_float(batch["known_sharp"])
        chosen = jax.random.bernoulli(key_known, config.known, (len(sharp), 1, 1, 1))
        return tuple(jnp.where(chosen, *both) for both in zip(known, made, strict=True))

    return pairs


def matched_pairs(config: ConfigDict) -> MakePairs:
    """Pairs from uint8 `blurry`, `sharp` and `kept`, white where `sharp` counts, and known ones if `config.known`.

    `config` is the section `adaptation`; its `augment` turns a pair with its blur. The third array is 1 where `sharp`
    is the truth.
    """

    def pairs(frozen: Mapping, batch: Mapping[str, Array], key: Array) -> tuple[Array, Array, Array]:
        key_turn, key_known = jax.random.split(key)
        own = [augment.to_float(batch[name]) for name in ("blurry", "sharp", "kept")]
        own = augment.dihedral(key_turn, own) if config.augment else own
        if not config.known:
            return tuple(own)
        known = augment.to_float(batch["known_blurry"]), augment.to_float(batch["known_sharp"]), jnp.ones_like(own[2])
        chosen = jax.random.bernoulli(key_known, config.known, (len(own[0]), 1, 1, 1))
        return tuple(jnp.where(chosen, *both) for both in zip(known, own, strict=True))

    return pairs
