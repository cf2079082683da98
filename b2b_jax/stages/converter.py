"""The converter check's classifier: a ResNet-18 that learns to tell unknown_blur from the set K."""

from collections.abc import Callable

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from b2b_jax.data import pipeline
from b2b_jax.data.sources import check_sizes
from b2b_jax.errors import UserError
from b2b_jax.inference import batching
from b2b_jax.method import classifier
from b2b_jax.method.known_blur import Supply
from b2b_jax.models.classifier import ResNet18
from b2b_jax.networks import WEIGHTS
from b2b_jax.stages import blur_extractor, common, known_blur
from b2b_jax.stages.known_blur import KnownBlur
from b2b_jax.stages.run import Run, centre_crops
from b2b_jax.stages.stage import Stage, asked
from b2b_jax.training import loop, schedules
from b2b_jax.training.state import State

SEED, SEED_NEW = 11, 15  # of its data streams, these and the following; NEW are of photos that no training sees


def fit(run: Run, validated: Callable[[], None]) -> None:
    """Trains the classifier and exports it."""
    config, known = run.config.evaluation.converter, known_blur.open_set(run, run.config.known_blur.source)
    network, adam = create(config), optax.adam(schedules.cosine(config.learning_rate, 1e-6, config.steps, 0))
    task = loop.Task(
        name="converter",
        steps=config.steps,
        batch=config.batch,
        init=lambda key: classifier.init(network, adam, config.crop, key),
        step=classifier.make_step(network, adam, known.make, run.config.translator),
        frozen={part: network.variables for part, network in known.frozen.items()},
        evaluate=validate(run, network, known),
    )
    camera = Supply(run.unknown.blur, pipeline.Crop, {"image": "unknown_blur"})
    streams = common.streams(run, [camera, *known.supplies], config.crop, SEED)
    state = common.train(run, task, common.batches(run, streams, config.batch), validated)
    hyper = {"name": "resnet18", "width": config.width, "input": config.input}
    common.export(run, "converter", hyper, state.params["classifier"])


def create(config: ConfigDict) -> ResNet18:
    """The network of the section `evaluation.converter`."""
    return ResNet18(config.width, config.input)


def camera_photos(run: Run) -> np.ndarray:
    """Centre crops (n, crop, crop, 3) of the camera's blurry photos, those of its test set if it has one."""
    config = run.config.evaluation.converter
    photos = centre_crops(run.unknown.test or run.unknown.blur, config.images, config.crop)
    return photos["blurry"] if "blurry" in photos else photos["image"]


def new_known(run: Run, known: KnownBlur, count: int) -> np.ndarray:
    """`count` photos (n, crop, crop, 3) of the set K, in crops (and under generated blur) that no training saw."""
    config, photos = run.config.evaluation.converter, []
    streams = common.streams(run, known.supplies, config.crop, SEED_NEW, crops=1)  # of as many photos as can be
    frozen = {part: network.variables for part, network in known.frozen.items()}
    make, key = jax.jit(known.make), jax.random.key(run.config.seed)
    batches = pipeline.batches(streams, config.batch, process=0, processes=1)
    for index, batch in enumerate(pipeline.iterate(batches, 0, -(-count // config.batch), threads=0, prefetch=0)):
        batch.pop("name")
        photos.append(np.asarray(make(frozen, batch, jax.random.fold_in(key, index))))
    return np.concatenate(photos)[:count]


def answers(network: ResNet18) -> Callable:
    """A function of variables and images (n, h, w, 3): True for each that is taken for the known blur."""
    return jax.jit(lambda variables, images: network.apply(variables, images) > 0)


def validate(run: Run, network: ResNet18, known: KnownBlur) -> loop.Evaluate:
    """The accuracy on photos that were not trained on, and some of them."""
    blurry, batch, answer = camera_photos(run), run.config.evaluation.converter.batch, answers(network)
    known_photos = new_known(run, known, len(blurry))

    def evaluate(state: State) -> tuple[loop.Scores, loop.Versions]:
        params = state.params["classifier"]
        shares = [float(np.mean(batching.run(lambda x: answer(params, x), x, batch))) for x in (blurry, known_photos)]
        versions = {"blurry y": blurry, "known blur": known_photos}
        return {"validation_accuracy": (1 - shares[0] + shares[1]) / 2}, versions

    return evaluate


def check(run: Run) -> None:
    """UserError when the classifier cannot be trained, or would be the only judge; nothing is compiled."""
    config = run.config.evaluation.converter
    check_translator(run)
    common.check_batch("evaluation.converter", config.batch)
    common.check_traces("evaluation.converter", create(config), config.crop)
    check_sizes(run.unknown.blur, config.crop, "evaluation.converter.crop")
    for supply in known_blur.supplies(run, run.config.known_blur.source):
        check_sizes(supply.source, supply.crop(config.crop).extent, "evaluation.converter.crop")
    if blur_extractor.needed(run):
        blur_extractor.check_crop(run, "evaluation.converter", config.crop)


def check_translator(run: Run) -> None:
    """UserError unless the run has, or will have, a translator that was trained against a discriminator."""
    if lacks := discriminator_lacks(run):
        wanted = "the discriminator of a translator that is trained adversarially in this run"
        raise UserError(f"evaluation.converter.enabled needs {wanted}, but {lacks}; change that or set it to False")


def discriminator_lacks(run: Run) -> str:
    """Why there will be no discriminator of the translator; "" if there will be."""
    config = run.config.translator
    if config.weights:
        return "translator.weights gives one that was trained elsewhere"
    if run.trained("translator"):
        there = (run.workdir / "translator" / "discriminator" / WEIGHTS).is_file()
        return "" if there else f"the translator in {run.workdir} was trained without one"
    if "translator" not in asked(run.config):
        return "config.stages does not name the translator"
    return "translator.supervision=camera trains without one" if config.supervision == "camera" else ""


STAGE = Stage(
    steps=lambda config: config.evaluation.converter.steps,
    inputs=lambda run: [lambda: check(run)],
    fit=fit,
    reads=("known", "unknown"),
    seeds=range(SEED, SEED_NEW + 3),
    needed=lambda run: run.config.evaluation.converter.enabled,
    serves="evaluation",
)
