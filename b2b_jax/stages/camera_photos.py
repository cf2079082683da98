"""The photos that a camera is learnt from, what is held out of them, and how what was found is described."""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np

from b2b_jax import images, levels, sharding
from b2b_jax.data import blur, pipeline
from b2b_jax.data.skipping import apart
from b2b_jax.data.sources import Source, check_sizes
from b2b_jax.method import camera_model
from b2b_jax.method.known_blur import Supply
from b2b_jax.models.camera import Shot
from b2b_jax.stages import camera_figures, common
from b2b_jax.stages.run import Run
from b2b_jax.training.state import Params

SEED, SEED_NEW = 20, 22  # of the camera's data streams, these and the following; NEW are of the photos held out
HELD_OUT, MOST = 1 / 16, 64  # share of either pile that is held out, and at most so many photos
CROPS = 128  # of the photos held out, that are looked at
FEWEST = 8  # photos of a pile, below which there is nothing to learn from, nor to hold out
SHOTS = 256  # of which the found camera is described


class Learnt(NamedTuple):
    """A camera that was found."""

    found: dict  # its figures
    reasons: list[str]  # why it should not be trained with, a line each
    hyper: Mapping  # its network, by name and hyper-parameters
    variables: Params


def supplies(run: Run, reach: int, held_out: bool) -> list[Supply]:
    """Crops of blurry photos, and of sharp ones, larger by the camera's reach; or of those that are held out."""
    parts = [apart(pile, held(pile))[held_out] for pile in (run.unknown.blur, run.unknown.sharp)]
    return [
        Supply(parts[0], pipeline.Crop, {"image": "unknown_blur"}),
        Supply(parts[1], lambda size: pipeline.Crop(size + 2 * reach), {"image": "unknown_sharp"}),
    ]


def held(pile: Source) -> int:
    """How many photos of a pile are held out."""
    return min(MOST, max(2, round(HELD_OUT * len(pile))))


def too_few(run: Run) -> list[str]:
    """A line when a pile has too few photos."""
    counts = {"unknown_blur": len(run.unknown.blur), "unknown_sharp": len(run.unknown.sharp)}
    return [f"{name} has {n} photos, at least {FEWEST} are needed" for name, n in counts.items() if n < FEWEST]


def check(run: Run, reach: int) -> None:
    """UserError when photos are smaller than what training and validation take of them; too few are said later."""
    if too_few(run):
        return
    for supply in supplies(run, reach, held_out=False):
        check_sizes(supply.source, supply.crop(run.config.camera.crop).extent, "camera.crop")
    check_unseen(run, reach)


def check_unseen(run: Run, reach: int) -> None:
    """UserError when the photos held out are smaller than what `unseen` takes of them."""
    for supply in supplies(run, reach, held_out=True):
        check_sizes(supply.source, supply.crop(run.config.camera.crop).extent, "camera.crop")


class Unseen(NamedTuple):
    """Crops of photos that are held out."""

    blurry: np.ndarray  # (n, crop, crop, 3) in [0, 1]
    sharp: np.ndarray  # of other scenes, larger by the camera's reach


def unseen(run: Run, reach: int) -> Unseen:
    """CROPS crops of the photos that are held out."""
    streams = common.streams(run, supplies(run, reach, held_out=True), run.config.camera.crop, SEED_NEW, crops=1)
    batches = pipeline.batches(streams, CROPS, process=0, processes=1)
    (batch,) = pipeline.iterate(batches, 0, 1, threads=0, prefetch=0)
    return Unseen(*(batch[key].astype(np.float32) / 255.0 for key in ("unknown_blur", "unknown_sharp")))


def true_kernels(run: Run) -> np.ndarray | None:
    """SHOTS random kernels of a generated camera; None for a real one, of unknown kernels, for motions and masks."""
    if run.config.data.unknown != "scenes" or run.config.data.unknown_blur:
        return None
    spec, rng = run.config.data.scenes.unknown_kernel.to_dict(), np.random.default_rng(run.config.data.scenes.seed)
    if spec["kind"] not in blur.KERNELS:
        return None
    kernels = blur.draw_many(rng, [spec], SHOTS)
    return kernels if kernels.min() >= 0 else None


def shots(run: Run, camera: nn.Module, params: Params) -> Shot:
    """SHOTS shots of the camera as they stand in pairs; of kernels that drift, all corners."""
    shot = camera_model.draw(camera, params, SHOTS, jax.random.key(run.config.seed), run.config.camera.threshold)
    return shot if shot.field is None else shot._replace(kernel=shot.kernel.reshape(-1, *shot.kernel.shape[-2:]))


def describe(run: Run, shot: Shot, photos: Unseen) -> dict:
    """The camera in figures; its kernels, and the true ones where they are known, go into pictures."""
    for name, kernels in (("kernels", shot.kernel), ("true_kernels", true_kernels(run))):
        if kernels is not None and sharding.is_first():
            sheet = camera_figures.sheet(np.asarray(kernels))
            images.write(run.workdir / "camera" / f"{name}.png", levels.to_uint8(sheet))
    return camera_figures.figures(shot) | {"noise_of_piles": [round(camera_figures.noise(x), 5) for x in photos]}
