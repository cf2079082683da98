"""Small sets of photos, scored."""

import numpy as np

from b2b_jax.data.sources import ArraySource
from b2b_jax.evaluation import protocols, scoring
from b2b_jax.evaluation.scores import Clock, Scores
from b2b_jax.evaluation.scoring import Setup
from b2b_jax.evaluation.sheet import Sheet

MEASURE = protocols.make_measure(protocols.PROTOCOLS["standard"], {})
METHODS = {"input": lambda p: p["blurry"], "half": lambda p: (p["blurry"] + p["sharp"]) / 2}


class Mixed:
    """Six records, every third of another size; grey levels tell which."""

    reads = 0

    def __len__(self):
        return 6

    def __getitem__(self, index):
        self.reads += 1
        image = np.full((*self.size(index)[1:], 3), 40 * index, np.uint8)
        return {"blurry": image, "sharp": image + np.uint8(5 + index), "name": f"folder/{index}.jpg"}

    def size(self, index):
        return f"folder/{index}.jpg", 24 if index % 3 == 2 else 16, 16


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
