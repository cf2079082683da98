"""The denoiser stage: a network learns to take the learnt camera's noise, JPEG and tone curve away.

Noise and JPEG hide a photo's blur, and a deblurrer takes them for something to restore; blur of light is not what it
knows. The pairs are the camera's own; a camera without any of the three needs no such network. It becomes a part of the
kernel mixture.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from b2b_jax import networks
from b2b_jax.data.sources import check_sizes
from b2b_jax.inference import batching
from b2b_jax.method import camera_model, denoising, supervised
from b2b_jax.method.known_blur import Supply
from b2b_jax.networks import Network
from b2b_jax.stages import camera, camera_photos, common, kernel_field, left_out
from b2b_jax.stages.run import Run
from b2b_jax.stages.stage import Stage
from b2b_jax.training import loop, optimizers
from b2b_jax.training.state import State, best_params

SEED = 32  # of its data stream
FEWEST = 4  # photos held out that it is measured on, at least


def fit(run: Run, validated: Callable[[], None]) -> None:
    """Trains it and exports it, unless there is nothing to take away, or no usable camera."""
    if not camera.usable(run):
        return left_out.say(run, "denoiser", "there is no usable camera to learn from")
    learnt, config = camera.load(run), run.config.denoiser
    if not denoising.needed(camera_photos.shots(run, learnt.module, learnt.variables)):
        return left_out.say(run, "denoiser", "the camera has no noise, no JPEG and no response")
    streams = common.streams(run, [supply(run, learnt.module.reach)], config.crop, SEED)
    state = common.train(run, task(run, learnt), common.batches(run, streams, config.batch), validated)
    common.export(run, "denoiser", config.network, best_params(state, "deblurrer"))


def supply(run: Run, reach: int) -> Supply:
    """Crops of sharp photos, without what is held out, larger by the camera's reach."""
    return camera_photos.supplies(run, reach, held_out=False)[1]


def task(run: Run, learnt: Network) -> loop.Task:
    """What the loop trains."""
    config = run.config.denoiser
    network, features = common.create(config.network, jnp.float32), common.load_features(run, "denoiser")
    optimizer = optimizers.create(config.optimizer, config.steps)
    make = denoising.make_pairs(learnt.module, run.config.camera.threshold, config.augment)
    return loop.Task(
        name="denoiser",
        steps=config.steps,
        batch=config.batch,
        init=lambda key: supervised.init(network, optimizer, config.ema, config.crop, key),
        step=supervised.make_step(network, optimizer, config, features and features.module, make),
        frozen={"camera": learnt.variables} | ({"features": features.variables} if features else {}),
        evaluate=validate(run, learnt),
    )


def validate(run: Run, learnt: Network) -> loop.Evaluate:
    """PSNR of photos held out, as the camera stores them and denoised, against those that are wanted."""
    network = common.create(run.config.denoiser.network, jnp.float32)
    sharp = camera_photos.unseen(run, learnt.module.reach).sharp[: max(FEWEST, run.config.evaluation.validation_images)]
    key, threshold = jax.random.key(run.config.seed), run.config.camera.threshold
    shot = camera_model.draw(learnt.module, learnt.variables, len(sharp), key, threshold)
    stored, truth = jax.device_get(jax.jit(denoising.noisy)(sharp, shot, key))
    restore = jax.jit(lambda params, x: networks.apply(network, params, x))

    def evaluate(state: State) -> tuple[loop.Scores, loop.Versions]:
        params = best_params(state, "deblurrer")
        denoised = batching.run(lambda x: restore(params, x), stored, run.config.evaluation.batch)
        scores = {"validation": denoised, "input": stored}
        versions = {"as stored": stored, "denoised": denoised, "wanted": truth}
        return {f"{name}_psnr": common.mean_psnr(x, truth) for name, x in scores.items()}, versions

    return evaluate


def needed(run: Run) -> bool:
    """True when it is asked for, with a kernel mixture that it can be a part of."""
    asked = run.config.denoiser.enabled and run.config.kernel_field.teacher == "reader"
    return asked and kernel_field.needed(run)


def check(run: Run) -> None:
    """UserError when the photos or the settings cannot train it; nothing is compiled."""
    config = run.config.denoiser
    common.check_supervised(run, "denoiser", common.create(config.network, jnp.float32))
    if run.config.camera.weights or not camera_photos.too_few(run):
        learnt = camera.load(run).module if run.config.camera.weights else camera.learner(run).network(run)
        photos = supply(run, learnt.reach)
        check_sizes(photos.source, photos.crop(config.crop).extent, "denoiser.crop")
        camera_photos.check_unseen(run, learnt.reach)


STAGE = Stage(
    steps=lambda config: config.denoiser.steps,
    inputs=lambda run: [lambda: check(run)],
    fit=fit,
    reads=("unknown",),
    seeds=range(SEED, SEED + 1),
    section="denoiser",
    needed=needed,
)
