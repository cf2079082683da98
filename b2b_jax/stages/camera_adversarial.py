"""A camera learnt against a discriminator: `camera.learner=adversarial`.

On crops of photos that are held out the discriminator's AUC says whether the camera is learnt, and needs no truth.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from b2b_jax import losses
from b2b_jax.data import pipeline
from b2b_jax.method import camera_model
from b2b_jax.method.camera_model import CameraModel
from b2b_jax.models.camera import Camera
from b2b_jax.models.patchgan import PatchGAN
from b2b_jax.settings import check_choice
from b2b_jax.stages import camera_figures, camera_photos, common, piles
from b2b_jax.stages.camera_photos import Learnt, Unseen
from b2b_jax.stages.run import Run
from b2b_jax.training import loop
from b2b_jax.training.state import State, best_params


def learn(run: Run, validated: Callable[[], None]) -> Learnt:
    """The camera that was found; its discriminator is exported."""
    config, method = run.config.camera, create(run)
    photos = camera_photos.unseen(run, method.networks["camera"].reach)
    evaluate = validate(run, method, photos)
    state = common.train(run, task(run, method, evaluate), batches(run, method), validated)
    params = best_params(state, "camera")
    scores, _ = evaluate(state)
    found = scores | camera_photos.describe(run, camera_photos.shots(run, method.networks["camera"], params), photos)
    found["evidence"] = round(piles.evidence(run.unknown.blur, run.unknown.sharp), 1)
    common.export(run, "camera/discriminator", config.discriminator, state.params["discriminator"])
    return Learnt(found, camera_figures.doubts(found, config.evidence), config.network, params)


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
    config = run.config.camera
    supplies = camera_photos.supplies(run, method.networks["camera"].reach, held_out=False)
    return common.batches(run, common.streams(run, supplies, config.crop, camera_photos.SEED), config.batch)


def create(run: Run) -> CameraModel:
    """The networks and optimisers of the section `camera`, float32: a kernel's small weights are all there is."""
    config = run.config.camera
    networks = {"camera": network(run), "discriminator": common.create(config.discriminator, run.dtype)}
    return CameraModel(networks, camera_model.optimizers(config, config.steps), config)


def network(run: Run) -> Camera:
    """The camera's network."""
    return common.create(run.config.camera.network, jnp.float32)


def validate(run: Run, method: CameraModel, photos: Unseen) -> loop.Evaluate:
    """The AUC on photos that are held out, of generated blur the kernels' distance from the truth, and pictures."""
    key, truth = jax.random.key(run.config.seed), camera_photos.true_kernels(run)
    camera, threshold = method.networks["camera"], run.config.camera.threshold
    measure = jax.jit(lambda params: camera_model.auc(method, params, *photos, key))
    pairs = jax.jit(lambda params, sharp: camera_model.pairs(camera, params, sharp, key, threshold))

    def evaluate(state: State) -> tuple[loop.Scores, loop.Versions]:
        params = {"camera": best_params(state, "camera"), "discriminator": state.params["discriminator"]}
        scores = {"held_out_auc": float(measure(params))}
        blurry, sharp = (np.asarray(x) for x in pairs(params["camera"], photos.sharp))
        versions = {"sharp": sharp, "as this camera": blurry, "a blurry photo of it": photos.blurry}
        kernels = camera_photos.shots(run, camera, params["camera"]).kernel
        if kernels is None:
            return scores, versions
        if truth is not None:
            scores["kernel_distance"] = camera_figures.distance(np.asarray(kernels), truth)
        pictures = camera_figures.enlarged(np.asarray(kernels[: len(sharp)]), sharp.shape[1])
        return scores, {"one of its kernels": pictures} | versions

    return evaluate


def check(run: Run) -> None:
    """UserError when the photos or the settings cannot train the camera; nothing is compiled."""
    config = run.config.camera
    check_choice("camera.gan_loss", config.gan_loss, losses.GAN_LOSSES)
    check_choice("camera.network.name", config.network.name, ("camera",))
    check_choice("camera.discriminator.name", config.discriminator.name, ("correlation", "patchgan"))
    method = create(run)
    discriminator = method.networks["discriminator"]
    if isinstance(discriminator, PatchGAN):
        check_choice("camera.discriminator.norm", discriminator.norm, ("instance", "none"))
    common.check_traces("camera", discriminator, config.crop)
    camera_photos.check(run, method.networks["camera"].reach)
