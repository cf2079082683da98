"""Small sets of photos, scored."""

import numpy as np

from b2b_jax.data.sources import ArraySource
from b2b_jax.evaluation import protocols, scoring
from b2b_jax.evaluation.scoring import Clock, Scores, Setup, Sheet

MEASURE = protocols.make_measure(protocols.PROTOCOLS["standard"], {})
METHODS = {"input": lambda p: p["blurry"], "half": lambda p: (p["blurry"] + p["sharp"]) / 2}


def noisy_source(count: int) -> ArraySource:
    rng = np.random.default_rng(1)
    sharp = rng.integers(60, 190, (count, 16, 16, 3)).astype(np.uint8)
    # Every photo is off by its own constant, so that its PSNR tells which photo it is.
    blurry = sharp + 4 * np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None]
    return ArraySource("photo", blurry=blurry, sharp=sharp)


def setup(folder, **changes) -> Setup:
    return Setup(Sheet(folder / "images.csv", ["psnr", "ssim"]), Clock(), **({"batch": 2} | changes))


def scored(folder, source, methods=METHODS, **changes) -> Scores:
    return scoring.score("set", source, methods, MEASURE, setup(folder, **changes))


class Killed(Exception):
    """Stands for the end of the process."""
