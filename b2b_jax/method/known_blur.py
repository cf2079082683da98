"""The set K, photos with the known blur, which the discriminator takes as real (arXiv 2403.16205, section 3.2).

At best the known blur lies on the camera's own sharp photos, so that nothing but blur tells K from G(y). Where it comes
from is `known_blur.source`: `SOURCES` has the photos, `make` what the accelerator does with their crops.
Images are NHWC float32 in [0, 1].
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from b2b_jax.data import domains, folder, pipeline
from b2b_jax.data.sources import Photos, Source
from b2b_jax.method import augment, blur_extractor

Array = jax.Array
Make = Callable[[Mapping, Mapping, Array], Array]  # (frozen, batch, key) -> photos with the known blur


@dataclass(frozen=True)
class Supply:
    """Photos that a step reads crops of."""

    source: Source
    crop: pipeline.Cropper
    names: Mapping[str, str]  # the crops' keys, and what the step calls them
    native: bool = False  # never resized: blur that the deblurrer knows would no longer be the one that it knows


def _extractor(config: ConfigDict, known: domains.Known, unknown: domains.Unknown) -> list[Supply]:
    pairs = Supply(known.train, known.crop, {"sharp": "known_sharp", "blurry": "known_blurry"}, native=True)
    return [pairs, Supply(unknown.sharp, pipeline.Crop, {"image": "unknown_sharp"})]


def _paired(config: ConfigDict, known: domains.Known, unknown: domains.Unknown) -> list[Supply]:
    return [Supply(known.train, known.crop, {"blurry": "known_blur"}, native=True)]


def _synthetic(config: ConfigDict, known: domains.Known, unknown: domains.Unknown) -> list[Supply]:
    crop = partial(pipeline.BlurredCrop, kernel=config.data.scenes.known_kernel.to_dict())
    return [Supply(unknown.sharp, crop, {"blurry": "known_blur"})]


def _folder(config: ConfigDict, known: domains.Known, unknown: domains.Unknown) -> list[Supply]:
    photos = Photos(folder.listed(config.known_blur, "path", "known_blur"))
    return [Supply(domains.training(config.data, photos), pipeline.Crop, {"image": "known_blur"}, native=True)]


SOURCES: Mapping[str, Callable[[ConfigDict, domains.Known, domains.Unknown], list[Supply]]] = {
    "extractor": _extractor,  # on the accelerator, the blur of a known pair is moved onto a sharp photo of the camera
    "paired": _paired,
    "synthetic": _synthetic,
    "folder": _folder,
}


def make(extractor: nn.Module | None) -> Make:
    """What turns a batch into the known blur: its `known_blur` as it is or, with an extractor, `transferred`.

    The extractor's weights are `frozen["blur_extractor"]`, an argument of the step.
    """
    if extractor is None:
        return lambda frozen, batch, key: augment.to_float(batch["known_blur"])
    return lambda frozen, batch, key: transferred(extractor, frozen["blur_extractor"], batch, key)


def transferred(network: nn.Module, variables: Mapping, batch: Mapping[str, Array], key: Array) -> Array:
    """The known blur on the camera's own photos: the blur of each known pair, moved onto an `unknown_sharp` crop.

    Args:
        batch: uint8 `known_sharp`, `known_blurry` (one crop of a pair) and `unknown_sharp`, all (n, crop, crop, 3).

    Returns:
        (n, crop, crop, 3) in [0, 1], clipped: a photo has no other values.
    """
    sharp, blurry, photo = (augment.to_float(batch[k]) for k in ("known_sharp", "known_blurry", "unknown_sharp"))
    code = blur_extractor.sample(key, *network.apply(variables, sharp, blurry, method="extract"))
    return jnp.clip(network.apply(variables, photo, code, method="adapt"), 0.0, 1.0)
