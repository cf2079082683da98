"""The set K of a run: its photos, what makes the known blur of their crops, and the frozen weights that it takes."""

from collections.abc import Mapping
from typing import NamedTuple

from b2b_jax.method import known_blur
from b2b_jax.method.known_blur import Make, Supply
from b2b_jax.networks import Network
from b2b_jax.settings import check_choice
from b2b_jax.stages import blur_extractor
from b2b_jax.stages.run import Run


class KnownBlur(NamedTuple):
    """The set K, opened."""

    supplies: list[Supply]
    make: Make
    frozen: Mapping[str, Network]  # "blur_extractor", where there is one


def open_set(run: Run, source: str) -> KnownBlur:
    """The set K of `source`, one of `known_blur.SOURCES`; UserError when its photos or weights are missing."""
    extractor = blur_extractor.load(run) if source == "extractor" else None
    frozen = {"blur_extractor": extractor} if extractor else {}
    return KnownBlur(supplies(run, source), known_blur.make(extractor and extractor.module), frozen)


def supplies(run: Run, source: str) -> list[Supply]:
    """The photos of the set K alone; UserError when they are missing, or there is no such `source`."""
    check_choice("known_blur.source", source, known_blur.SOURCES)
    return known_blur.SOURCES[source](run.config, run.known, run.unknown)
