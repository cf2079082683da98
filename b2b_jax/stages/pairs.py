"""The pairs of a run's learnt camera: the photos that they are made of, what makes them, and the frozen weights."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from b2b_jax.data import pipeline
from b2b_jax.method import adaptation
from b2b_jax.method.known_blur import Supply
from b2b_jax.method.supervised import MakePairs
from b2b_jax.networks import Network
from b2b_jax.stages import camera, camera_photos
from b2b_jax.stages.run import Run


class Pairs(NamedTuple):
    """Pairs to train with, opened."""

    supplies: list[Supply]
    make: MakePairs
    frozen: Mapping[str, Any]  # "camera": its weights


def open_pairs(run: Run, config: ConfigDict) -> Pairs:
    """Pairs of the run's camera; `config` has `augment` and `known`, see `adaptation.make_pairs`."""
    learnt = camera.load(run)
    make = adaptation.make_pairs(learnt.module, run.config.camera.threshold, config)
    return Pairs(supplies(run, learnt, config), make, {"camera": learnt.variables})


def supplies(run: Run, learnt: Network, config: ConfigDict) -> list[Supply]:
    """Sharp photos of the camera, larger by its reach, and known pairs if they are asked for."""
    margin = 2 * learnt.module.reach
    own = Supply(run.unknown.sharp, lambda size: pipeline.Crop(size + margin), {"image": "unknown_sharp"})
    return [own, *known(run, config)]


def known(run: Run, config: ConfigDict) -> list[Supply]:
    """Known pairs, if `config.known` asks for them."""
    names = {"blurry": "known_blurry", "sharp": "known_sharp"}
    return [Supply(run.known.train, run.known.crop, names)] if config.known else []


def wanted(run: Run, config: ConfigDict) -> list[Supply]:
    """The photos that `open_pairs` will want once the camera is learnt; none if there are too few to learn it."""
    given = run.config.camera.weights
    if not given and camera_photos.too_few(run):
        return []
    learnt = camera.load(run) if given else Network(camera.learner(run).network(run), None)
    return supplies(run, learnt, config)
