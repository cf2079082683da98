"""The camera stage: learns from the two unpaired piles how this camera blurs, so that pairs of it can be made at will.

Some photos of either pile are held out: on their crops the discriminator's AUC says whether the camera is learnt, and
needs no truth. What was found stands in camera/scores.json and camera/kernels.png. A camera that is not worth training
with is said to be so in one line; the run continues without it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from b2b_jax import images, levels, losses, sharding
from b2b_jax.data import blur, pipeline
from b2b_jax.data.skipping import apart
from b2b_jax.data.sources import Source, check_sizes
from b2b_jax.errors import UserError
from b2b_jax.files import read_object, write_json
from b2b_jax.method import camera_model
from b2b_jax.method.camera_model import CameraModel
from b2b_jax.method.known_blur import Supply
from b2b_jax.models.camera import Camera, Shot
from b2b_jax.models.patchgan import PatchGAN
from b2b_jax.networks import Network
from b2b_jax.settings import check_choice
from b2b_jax.stages import camera_figures, common, piles
from b2b_jax.stages.run import Run
from b2b_jax.stages.stage import Stage
from b2b_jax.training import loop
from b2b_jax.training.state import Params, State, best_params

SEED, SEED_NEW = 20, 22  # of its data streams, these and the following; NEW are of the photos that are held out
HELD_OUT, MOST = 1 / 16, 64  # share of either pile that is held out, and at most so many photos
FEWEST = 8  # photos of a pile, below which there is nothing to learn from, nor to hold out
CROPS = 128  # on which the AUC is measured
SHOTS = 256  # of which the found camera is described


def fit(run: Run, validated: Callable[[], None]) -> None:
    """Learns the camera, exports it and says what was found; too few photos or a diverged training are one line."""
    reasons = too_few(run)
    if reasons:
        return record(run, {}, reasons)
    config, method = run.config.camera, create(run)
    photos = unseen(run, method)
    evaluate = validate(run, method, photos)
    try:
        state = common.train(run, task(run, method, evaluate), batches(run, method), validated)
    except loop.Diverged as error:
        return record(run, {}, [f"{error}"])
    found = describe(run, method, state, evaluate)
    found["noise_of_piles"] = [round(camera_figures.noise(x), 5) for x in photos]
    found["evidence"] = round(piles.evidence(run.unknown.blur, run.unknown.sharp), 1)
    record(run, found, camera_figures.doubts(found, config.evidence))
    common.export(run, "camera/discriminator", config.discriminator, state.params["discriminator"])
    common.export(run, "camera", config.network, best_params(state, "camera"))  # last: it marks the stage as finished


def record(run: Run, found: dict, reasons: list[str]) -> None:
    """Writes what was found, and says why the camera is not used, or what to look at."""
    notes = camera_figures.notes(found) if found else []
    if sharding.is_first():
        verdict = {"usable": not reasons, "reasons": reasons, "notes": notes}
        write_json(run.workdir / "camera" / "scores.json", found | verdict)
        for note in notes:
            print(f"camera: note that {note}")
        for reason in reasons:
            print(f"camera: not used, {reason}. The run continues with Blur2Blur alone")


def task(run: Run, method: CameraModel, evaluate: loop.Evaluate) -> loop.Task:
    """What the loop trains."""
    return loop.Task(
        name="camera",
        steps=run.config.camera.steps,
        batch=run.config.camera.batch,
        init=lambda key: camera_model.init(method, run.config.camera.crop, key),
        step=camera_model.make_step(method),
        frozen={},
        evaluate=evaluate,
    )


def batches(run: Run, method: CameraModel) -> pipeline.Batches:
    """Batches of both piles without what is held out."""
    config, options = run.config.camera, {"crops": run.config.data.crops_per_image}
    streams = common.streams(run, supplies(run, method, held_out=False), config.crop, SEED, options)
    return common.batches(run, streams, config.batch)


def create(run: Run) -> CameraModel:
    """The networks and optimisers of the section `camera`, float32: a kernel's small weights are all there is."""
    config = run.config.camera
    networks = {
        "camera": common.create(config.network, jnp.float32),
        "discriminator": common.create(config.discriminator, run.dtype),
    }
    return CameraModel(networks, camera_model.optimizers(config, config.steps), config)


def load(run: Run) -> Network:
    """The learnt or given camera; UserError when the file holds another network."""
    network = run.network("camera")
    if not isinstance(network.module, Camera):
        raise UserError(f"{run.weights_path('camera')} holds {type(network.module).__name__}, not a Camera")
    return network


def usable(run: Run) -> bool:
    """True when the run has a camera that is worth training with: learnt and not doubted, or given."""
    found = read_object(run.workdir / "camera" / "scores.json")
    return bool(run.config.camera.weights) or (run.trained("camera") and found.get("usable", False))


def refused(run: Run) -> bool:
    """True when the run learnt a camera and found it not worth training with."""
    return run.trained("camera") and not usable(run)


def needed(run: Run) -> bool:
    """True when the camera is asked for, or something that trains with it."""
    config = run.config
    supervised = config.translator.supervision != "adversarial" or config.evaluation.blur2blur_pairs
    taught = config.kernel_field.enabled and config.kernel_field.teacher == "camera"
    adapted = config.adaptation.enabled and config.adaptation.teacher == "camera"
    return config.camera.enabled or adapted or supervised or taught


def supplies(run: Run, method: CameraModel, held_out: bool) -> list[Supply]:
    """Crops of blurry photos, and of sharp ones, larger by the camera's reach; or of those that are held out."""
    margin = 2 * method.networks["camera"].reach
    parts = [apart(pile, held(pile))[held_out] for pile in (run.unknown.blur, run.unknown.sharp)]
    return [
        Supply(parts[0], pipeline.Crop, {"image": "unknown_blur"}),
        Supply(parts[1], lambda size: pipeline.Crop(size + margin), {"image": "unknown_sharp"}),
    ]


def held(pile: Source) -> int:
    """How many photos of a pile are held out."""
    return min(MOST, max(2, round(HELD_OUT * len(pile))))


# ----------------------------------------------------------------------------------------------------------- validation


class Unseen(NamedTuple):
    """Crops of photos that are held out."""

    blurry: np.ndarray  # (n, crop, crop, 3) in [0, 1]
    sharp: np.ndarray  # of other scenes, larger by the camera's reach


def unseen(run: Run, method: CameraModel) -> Unseen:
    """CROPS crops of the photos that are held out."""
    config = run.config.camera
    streams = common.streams(run, supplies(run, method, held_out=True), config.crop, SEED_NEW)
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
    kernels = np.stack([blur.draw(rng, spec) for _ in range(SHOTS)])
    return kernels if kernels.min() >= 0 else None


def validate(run: Run, method: CameraModel, photos: Unseen) -> loop.Evaluate:
    """The AUC on photos that are held out, of generated blur the kernels' distance from the truth, and pictures."""
    key, truth = jax.random.key(run.config.seed), true_kernels(run)
    camera, threshold = method.networks["camera"], run.config.camera.threshold
    measure = jax.jit(lambda params: camera_model.auc(method, params, *photos, key))
    pairs = jax.jit(lambda params, sharp: camera_model.pairs(camera, params, sharp, key, threshold))

    def evaluate(state: State) -> tuple[loop.Scores, loop.Versions]:
        params = {"camera": best_params(state, "camera"), "discriminator": state.params["discriminator"]}
        scores = {"held_out_auc": float(measure(params))}
        blurry, sharp = (np.asarray(x) for x in pairs(params["camera"], photos.sharp))
        versions = {"sharp": sharp, "as this camera": blurry, "a blurry photo of it": photos.blurry}
        kernels = shots(run, camera, params["camera"]).kernel
        if kernels is None:
            return scores, versions
        if truth is not None:
            scores["kernel_distance"] = camera_figures.distance(np.asarray(kernels), truth)
        pictures = camera_figures.enlarged(np.asarray(kernels[: len(sharp)]), sharp.shape[1])
        return scores, {"one of its kernels": pictures} | versions

    return evaluate


def shots(run: Run, camera: Camera, params: Params) -> Shot:
    """SHOTS shots of the camera as they stand in pairs; of kernels that drift, all corners."""
    shot = camera_model.draw(camera, params, SHOTS, jax.random.key(run.config.seed), run.config.camera.threshold)
    return shot if shot.field is None else shot._replace(kernel=shot.kernel.reshape(-1, *shot.kernel.shape[-2:]))


def describe(run: Run, method: CameraModel, state: State, evaluate: loop.Evaluate) -> dict:
    """The camera in figures; its kernels, and the true ones where they are known, go into pictures."""
    shot = shots(run, method.networks["camera"], best_params(state, "camera"))
    for name, kernels in (("kernels", shot.kernel), ("true_kernels", true_kernels(run))):
        if kernels is not None and sharding.is_first():
            sheet = camera_figures.sheet(np.asarray(kernels))
            images.write(run.workdir / "camera" / f"{name}.png", levels.to_uint8(sheet))
    scores, _ = evaluate(state)
    return scores | camera_figures.figures(shot)


def too_few(run: Run) -> list[str]:
    """A line when a pile has too few photos."""
    counts = {"unknown_blur": len(run.unknown.blur), "unknown_sharp": len(run.unknown.sharp)}
    return [f"{name} has {n} photos, at least {FEWEST} are needed" for name, n in counts.items() if n < FEWEST]


def check(run: Run) -> None:
    """UserError when the photos or the settings cannot train the camera; nothing is compiled."""
    config = run.config.camera
    common.check_batch("camera", config.batch)
    check_choice("camera.gan_loss", config.gan_loss, losses.GAN_LOSSES)
    check_choice("camera.network.name", config.network.name, ("camera",))
    check_choice("camera.discriminator.name", config.discriminator.name, ("correlation", "patchgan"))
    method = create(run)
    discriminator = method.networks["discriminator"]
    if isinstance(discriminator, PatchGAN):
        check_choice("camera.discriminator.norm", discriminator.norm, ("instance", "none"))
    common.check_traces("camera", discriminator, config.crop)
    for supply in supplies(run, method, held_out=False) if not too_few(run) else []:
        check_sizes(supply.source, supply.crop(config.crop).extent, "camera.crop")


STAGE = Stage(
    steps=lambda config: config.camera.steps,
    inputs=lambda run: [lambda: check(run)],
    fit=fit,
    reads=("unknown",),
    seeds=range(SEED, SEED_NEW + 2),
    section="camera",
    needed=needed,
)
